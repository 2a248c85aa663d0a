// The paged caches: which tokens a block attends to and where they lie, how they are read, and eight-bit floats in them.
//
// A block takes one sequence, one head of keys and values with all GROUP heads of queries that share it, and one part (split)
// of the sequence's tokens; each of its warps takes 16 tokens at a time.

constexpr int GROUP = HEADS / KV_HEADS;  // at most 8: heads are rows of the one, columns of the other tensor core product
constexpr int TILE = 16;                 // tokens
constexpr int QUERY_STRIDE = DIM + 32;   // numbers; 64 bytes more, so that lanes of two heads read different banks
constexpr int PAIRS = DIM / 64;          // of numbers that are rotated, of a lane

#if FP8  // caches of eight-bit floats: sign, four bits of exponent, three of mantissa; see also `to_stored`
typedef unsigned char stored;
typedef uint2 Eight;
#else
typedef number stored;
typedef uint4 Eight;
#endif

struct Attention {                  // in shared memory
    number queries[8 * QUERY_STRIDE];  // rotated; of GROUP heads
    stored key[DIM], value[DIM];       // of the new token
    float top[WARPS][8], total[WARPS][8];
    float sums[WARPS][GROUP * DIM];  // in fours, which lie where `four` says
    unsigned before;
};
static_assert(sizeof(Attention) <= VECTOR_BYTES, "shape.py says how large it is");

struct Step {  // what is computed
    const long long* input_ids;  // [BATCH]
    const int* past_lengths;     // [BATCH]
    const int* block_table;      // [BATCH, most_blocks]
    int most_blocks;
    float* logits;  // [BATCH, VOCABULARY]
};

struct Splits {  // of the tokens of a sequence that are seen
    int first;   // the first tile
    int tiles;   // of a split
    int count;
    bool late;  // merged by whoever reads the result

    __device__ __forceinline__ explicit Splits(int past) {
        first = WINDOW ? max(0, past + 1 - WINDOW) / TILE : 0;
        const int all = past / TILE + 1 - first;
        const bool few = all <= ROUNDS * WARPS * DIRECT || DIRECT == SPLITS;
        const int most = few ? DIRECT : SPLITS;
        tiles = max(WARPS, (all + most - 1) / most);
        count = (all + tiles - 1) / tiles;
        late = DIRECT > 1 && few;
    }
};

struct Part {  // a block's part of the attention of every layer; looked up once
    int sequence, head, split;
    Splits splits;
    int begin, end;  // tokens
    int past;        // the new token's position
    const int* blocks;
    float cosines[PAIRS], sines[PAIRS];  // of this lane's pairs, at the new token's position
    unsigned keys[2], values[4];         // this lane's rows of the warp's first tile, see `Tile`

    __device__ __forceinline__ Part(const Step& step, const Model& model, int item)
        : splits(step.past_lengths[item / KV_HEADS % BATCH]) {
        split = item / (BATCH * KV_HEADS);
        sequence = item / KV_HEADS % BATCH;
        head = item % KV_HEADS;
        past = step.past_lengths[sequence];
        blocks = step.block_table + (long long)sequence * step.most_blocks;
        begin = (splits.first + split * splits.tiles) * TILE;
        end = min(begin + splits.tiles * TILE, past + 1);
        if (is_empty()) return;
        find_rows(keys, values, first_token());
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            const long long at = (long long)past * (DIM / 2) + threadIdx.x % 32 + 32 * i;
            cosines[i] = to_float(model.cosines[at]), sines[i] = to_float(model.sines[at]);
        }
    }
    __device__ __forceinline__ bool is_empty() const { return split >= splits.count; }
    __device__ __forceinline__ bool has_new_token() const { return split == splits.count - 1; }
    __device__ __forceinline__ int first_token() const { return begin + threadIdx.x / 32 * TILE; }  // of this warp
    __device__ __forceinline__ unsigned row(int token) const {  // of the cache [rows, DIM]
        return (blocks[token / BLOCK_TOKENS] * BLOCK_TOKENS + token % BLOCK_TOKENS) * KV_HEADS + head;
    }

    // Rows of the tile that begins at `from`. In place of tokens that are not there, or not yet, others.
    __device__ __forceinline__ void find_rows(unsigned (&key_rows)[2], unsigned (&value_rows)[4], int from) const {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, last = max(0, min(end, past) - 1);
        for (int i = 0; i < 2; i++) key_rows[i] = row(min(from + 8 * i + g, last));
        for (int i = 0; i < 4; i++) value_rows[i] = row(min(from + 2 * t + i % 2 + i / 2 * 8, last));
    }

    // Brings what a layer's attention will read into the L2 cache: the first tiles of all warps, three more of each.
    __device__ __forceinline__ void fetch(const Layer& layer) const {
        constexpr int LINE = 128 / sizeof(stored), LINES = (DIM + LINE - 1) / LINE;  // numbers; of a row
        const int thread = anew(threadIdx.x), g = thread % 32 / 4, t = thread % 4;
        if (QK_NORM && thread < 2) {
            prefetch(layer.query_norm + 64 * (thread % (DIM / 64)));
            prefetch(layer.key_norm + 64 * (thread % (DIM / 64)));
        }
        if (is_empty()) return;
        if (first_token() < end) {
            if (t < LINES)
                for (unsigned at : keys) prefetch((const stored*)layer.keys + (size_t)anew(at) * DIM + LINE * t);
            if (g < LINES)
                for (unsigned at : values) prefetch((const stored*)layer.values + (size_t)anew(at) * DIM + LINE * g);
        }
        const int from = begin + WARPS * TILE, tokens = min(past, min(end, begin + 4 * WARPS * TILE)) - from;
        for (int i = thread - 32; i < tokens * LINES; i += THREADS - 32) {  // the first warp looks at the barrier
            if (i < 0) break;
            const size_t at = (size_t)row(from + i / LINES) * DIM + i % LINES * LINE;
            prefetch((const stored*)layer.keys + at);
            prefetch((const stored*)layer.values + at);
        }
    }
};

constexpr int PARTS = BATCH * KV_HEADS * SPLITS;

#if FP8
// The nearest of those floats, of two the even one; numbers that are too large become the largest.
__device__ __forceinline__ stored to_stored(number rounded) {
    const float value = to_float(rounded), size = fminf(fabsf(value), 448.0f);
    const unsigned sign = word_of(value) >> 24 & 0x80, bits = word_of(size);
    if (value != value) return 0x7f;
    if (size < 0.015625f) return sign | (word_of(size + 16384.0f) & 0xff);  // a multiple of 2^-9
    return sign | ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3);
}
// Exact: the bits are moved to where wider numbers have them, whose exponents are then too small by 8 or 120.
__device__ __forceinline__ unsigned wider(unsigned codes) {  // in the upper bytes of both halves
    const unsigned moved = (codes & 0x80008000) | (codes & 0x7f007f00) >> (HALF ? 1 : 4);
    return multiply_halves(moved, HALF ? 0x5c005c00 : 0x7b807b80);
}
__device__ __forceinline__ uint4 numbers_of(Eight codes) {
    const unsigned x = codes.x << 8, y = codes.y << 8;
    return {wider(low_halves(x, codes.x)), wider(high_halves(x, codes.x)), wider(low_halves(y, codes.y)),
            wider(high_halves(y, codes.y))};
}
#else
__device__ __forceinline__ stored to_stored(number rounded) { return rounded; }
__device__ __forceinline__ uint4 numbers_of(Eight eight) { return eight; }
#endif

// A warp's keys and values of 16 tokens, read before the queries are there. Lane (g, t) has of keys tokens g and g + 8, of
// values tokens 2t + 0, 1, 8, 9.
struct Tile {
    Eight keys[2][DIM / 32], values[DIM / 64][4];

    __device__ __forceinline__ void load_keys(const Layer& layer, const unsigned (&rows)[2]) {
        const stored* at = (const stored*)layer.keys + 8 * (threadIdx.x % 4);
        const unsigned own[2] = {anew(rows[0]), anew(rows[1])};
#pragma unroll
        for (int i = 0; i < 2 * (DIM / 32); i++)
            keys[i % 2][i / 2] = read_fresh((const Eight*)(at + (size_t)own[i % 2] * DIM + 32 * (i / 2)));
    }
    __device__ __forceinline__ void load_values(const Layer& layer, const unsigned (&rows)[4]) {
        const stored* at = (const stored*)layer.values + 8 * (threadIdx.x % 32 / 4);
        const unsigned own[4] = {anew(rows[0]), anew(rows[1]), anew(rows[2]), anew(rows[3])};
#pragma unroll
        for (int i = 0; i < 4 * (DIM / 64); i++)
            values[i / 4][i % 4] = read_fresh((const Eight*)(at + (size_t)own[i % 4] * DIM + 64 * (i / 4)));
    }
    __device__ __forceinline__ void load(const Layer& layer, const Part& part) {  // the first one
        *this = {};  // or what it may not be now is kept in registers through all phases
        if (part.is_empty() || part.first_token() >= part.end) return;
        load_keys(layer, part.keys);
        load_values(layer, part.values);
    }

    // The new token's row, and in place of those behind it, whose weights are zero, too: what was read there may be no numbers.
    __device__ __forceinline__ void put_new_token(const Attention& shared, int past, int from) {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        if (from + TILE <= past) return;
#pragma unroll
        for (int i = 0; i < 2 * (DIM / 32); i++)
            if (from + 8 * (i % 2) + g >= past) keys[i % 2][i / 2] = *(const Eight*)(shared.key + 32 * (i / 2) + 8 * t);
#pragma unroll
        for (int i = 0; i < 4 * (DIM / 64); i++)
            if (from + 2 * t + i % 2 + i % 4 / 2 * 8 >= past)
                values[i / 4][i % 4] = *(const Eight*)(shared.value + 64 * (i / 4) + 8 * g);
    }
};
