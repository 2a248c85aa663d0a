// Rotary embedding, the new token's place in the cache, and attention over paged keys and values.
//
// A block takes one sequence, one head of keys and values with all GROUP heads of queries that share it, and one part (split)
// of the sequence's tokens; each of its warps takes 16 tokens at a time. The block that is through last merges the splits.

constexpr int GROUP = HEADS / KV_HEADS;  // at most 8: heads of queries are rows of a tensor core product
constexpr int TILE = 16;                 // tokens
constexpr float NOTHING = -1e30f;        // a score below all others; finite, so that differences are numbers

struct Attention {           // in shared memory
    number queries[8 * DIM];  // rotated; of GROUP heads
    number key[DIM], value[DIM];  // of the new token
    float top[WARPS][8], total[WARPS][8];
    float sums[WARPS][GROUP][DIM];
    float split_top[SPLITS][8], split_total[SPLITS][8];
    unsigned before;
};

struct Scratch {            // in GPU memory, shared by all blocks
    number* hidden;         // [BATCH, HIDDEN], the residual stream
    number* qkv;            // [BATCH, QKV_ROWS]
    number* attended;       // [BATCH, QUERY_ROWS]
    number* gated;          // [BATCH, INNER]
    float* split_sums;      // [SPLITS, BATCH, KV_HEADS, GROUP, DIM]
    float* split_weights;   // [SPLITS, BATCH, KV_HEADS, GROUP, 2], highest score and sum of weights
    unsigned* counters;     // of barriers, of blocks that are through, and of splits [BATCH, KV_HEADS]; zero between steps
};

struct Step {  // what is computed
    const long long* input_ids;  // [BATCH]
    const int* past_lengths;     // [BATCH]
    const int* block_table;      // [BATCH, most_blocks]
    int most_blocks;
    float* logits;  // [BATCH, VOCABULARY]
};

struct Part {  // a block's part of a layer's attention
    int sequence, head, split, splits;
    int begin, end;  // tokens
    int past;        // the new token's position
    const int* blocks;

    __device__ __forceinline__ Part(const Step& step, int item) {
        split = item / (BATCH * KV_HEADS);
        sequence = item / KV_HEADS % BATCH;
        head = item % KV_HEADS;
        past = step.past_lengths[sequence];
        blocks = step.block_table + (long long)sequence * step.most_blocks;
        const int tiles = past / TILE + 1;
        const int of_split = max(WARPS, (tiles + SPLITS - 1) / SPLITS);
        splits = (tiles + of_split - 1) / of_split;
        begin = split * of_split * TILE;
        end = min(begin + of_split * TILE, past + 1);
    }
    __device__ __forceinline__ bool is_empty() const { return split >= splits; }
    __device__ __forceinline__ bool has_new_token() const { return split == splits - 1; }
    __device__ __forceinline__ long long row(int token) const {  // where the cache has it, in numbers
        const long long block = blocks[token / BLOCK_TOKENS];
        return ((block * BLOCK_TOKENS + token % BLOCK_TOKENS) * KV_HEADS + head) * DIM;
    }
};

constexpr int PARTS = BATCH * KV_HEADS * SPLITS;

// A warp's keys and values of 16 tokens, read before the queries are there. Lane (g, t) has of keys tokens g and g + 8, of
// values tokens 2t + 0, 1, 8, 9. In place of rows that are not there, or not yet, it reads others.
struct Tile {
    uint4 keys[2][DIM / 32], values[DIM / 64][4];

    __device__ __forceinline__ void load(const Layer& layer, const Part& part, int from) {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, last = max(0, min(part.end, part.past) - 1);
        const number *key_rows[2], *value_rows[4];  // all looked up before the first is read
#pragma unroll
        for (int i = 0; i < 2; i++) key_rows[i] = layer.keys + part.row(min(from + 8 * i + g, last)) + 8 * t;
#pragma unroll
        for (int i = 0; i < 4; i++)
            value_rows[i] = layer.values + part.row(min(from + 2 * t + i % 2 + i / 2 * 8, last)) + 8 * g;
#pragma unroll
        for (int i = 0; i < 2 * (DIM / 32); i++)
            keys[i % 2][i / 2] = read_fresh((const uint4*)(key_rows[i % 2] + 32 * (i / 2)));
#pragma unroll
        for (int i = 0; i < 4 * (DIM / 64); i++)
            values[i / 4][i % 4] = read_fresh((const uint4*)(value_rows[i % 4] + 64 * (i / 4)));
    }

    // The new token's row, and in place of those behind it, whose weights are zero, too: what was read there may be no numbers.
    __device__ __forceinline__ void put_new_token(const Attention& shared, int past, int from) {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < 2 * (DIM / 32); i++)
            if (from + 8 * (i % 2) + g >= past) keys[i % 2][i / 2] = *(const uint4*)(shared.key + 32 * (i / 2) + 8 * t);
#pragma unroll
        for (int i = 0; i < 4 * (DIM / 64); i++)
            if (from + 2 * t + i % 2 + i % 4 / 2 * 8 >= past)
                values[i / 4][i % 4] = *(const uint4*)(shared.value + 64 * (i / 4) + 8 * g);
    }
};

__device__ __forceinline__ int first_token(const Part& part) { return part.begin + threadIdx.x / 32 * TILE; }

// Reads a block's first tiles, and brings the next ones into the L2 cache.
__device__ __forceinline__ void begin_part(Tile& tile, const Layer& layer, const Step& step, int item) {
    if (item >= PARTS) return;
    const Part part(step, item);
    if (part.is_empty()) return;
    if (first_token(part) < part.end) tile.load(layer, part, first_token(part));
    constexpr int LINES = (2 * DIM + 127) / 128, FROM = TILE * WARPS, TO = 4 * FROM;  // 128-byte lines of a token's row; tokens
    const int tokens = min(part.past, min(part.end, part.begin + TO)) - part.begin;
    for (int i = threadIdx.x + FROM * LINES; i < tokens * LINES; i += THREADS) {
        const long long at = part.row(part.begin + i / LINES) + i % LINES * 64;
        prefetch(layer.keys + at);
        prefetch(layer.values + at);
    }
}

// One head of queries or keys [DIM], normalized if the model does so and rotated to `position`; by one warp.
__device__ __forceinline__ void rotate_head(
    number* target, const number* source, const number* norm, const Model& model, int position) {
    constexpr int PAIRS = DIM / 64;  // of a lane
    const int lane = threadIdx.x % 32;
    float low[PAIRS], high[PAIRS], cosines[PAIRS], sines[PAIRS], squares = 0;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        const long long at = (long long)position * (DIM / 2) + lane + 32 * i;
        cosines[i] = to_float(model.cosines[at]), sines[i] = to_float(model.sines[at]);
    }
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        low[i] = to_float(read_fresh(source + lane + 32 * i));
        high[i] = to_float(read_fresh(source + lane + 32 * i + DIM / 2));
        squares += low[i] * low[i] + high[i] * high[i];
    }
    if (QK_NORM) {
        for (int mask = 16; mask; mask /= 2) squares += shuffle_xor(squares, mask);
        const float scale = inverse_root(squares / DIM + EPSILON);
        for (int i = 0; i < PAIRS; i++) {
            const int d = lane + 32 * i;
            low[i] = to_float(to_number(low[i] * scale * to_float(norm[d])));
            high[i] = to_float(to_number(high[i] * scale * to_float(norm[d + DIM / 2])));
        }
    }
    for (int i = 0; i < PAIRS; i++) {
        const int d = lane + 32 * i;
        target[d] = to_number(low[i] * cosines[i] - high[i] * sines[i]);
        target[d + DIM / 2] = to_number(high[i] * cosines[i] + low[i] * sines[i]);
    }
}

// The sums of a warp's tiles: sums [GROUP, DIM] in the layout of tensor core products, and of each head the highest score and
// the sum of weights. Lane (g, t) has head g; tile n's columns are dims 64 * (n / 8) + 8 * column + n % 8.
__device__ __forceinline__ void attend_tiles(
    const Attention& shared, Tile& tile, const Layer& layer, const Part& part, float (&sums)[DIM / 8][4], float& top,
    float& total) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    constexpr float SCALE = 1.4426950408889634f / ROOT_OF_DIM;  // scores as powers of two
    uint4 query[DIM / 32];
#pragma unroll
    for (int c = 0; c < DIM / 32; c++)
        query[c] = g < GROUP ? *(const uint4*)(shared.queries + g * DIM + 32 * c + 8 * t) : uint4{0, 0, 0, 0};
    for (int from = first_token(part); from < part.end; from += WARPS * TILE) {
        if (from != first_token(part)) tile.load(layer, part, from);
        tile.put_new_token(shared, part.past, from);
        float scores[2][4] = {}, highest = NOTHING;
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int c = 0; c < DIM / 32; c++) {
                multiply(scores[half], query[c].x, 0, query[c].y, 0, tile.keys[half][c].x, tile.keys[half][c].y);
                multiply(scores[half], query[c].z, 0, query[c].w, 0, tile.keys[half][c].z, tile.keys[half][c].w);
            }
            for (int i = 0; i < 2; i++) {
                const bool there = from + 8 * half + 2 * t + i < part.end;
                scores[half][i] = there ? scores[half][i] * SCALE : NOTHING;
                highest = fmaxf(highest, scores[half][i]);
            }
        }
        highest = fmaxf(highest, shuffle_xor(highest, 1));
        highest = fmaxf(highest, shuffle_xor(highest, 2));
        const float next = fmaxf(top, highest), shrink = power_of_two(top - next);
        top = next;
        total *= shrink;
        unsigned weights[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float low = power_of_two(scores[half][0] - top), high = power_of_two(scores[half][1] - top);
            total += low + high;
            weights[half] = to_number(low) | (unsigned)to_number(high) << 16;
        }
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) sums[n][0] *= shrink, sums[n][1] *= shrink;
#pragma unroll
        for (int c = 0; c < DIM / 64; c++) {
            const unsigned words[4][4] = {
                {tile.values[c][0].x, tile.values[c][0].y, tile.values[c][0].z, tile.values[c][0].w},
                {tile.values[c][1].x, tile.values[c][1].y, tile.values[c][1].z, tile.values[c][1].w},
                {tile.values[c][2].x, tile.values[c][2].y, tile.values[c][2].z, tile.values[c][2].w},
                {tile.values[c][3].x, tile.values[c][3].y, tile.values[c][3].z, tile.values[c][3].w}};
#pragma unroll
            for (int w = 0; w < 4; w++) {
                multiply(sums[8 * c + 2 * w], weights[0], 0, weights[1], 0, low_halves(words[0][w], words[1][w]),
                         low_halves(words[2][w], words[3][w]));
                multiply(sums[8 * c + 2 * w + 1], weights[0], 0, weights[1], 0, high_halves(words[0][w], words[1][w]),
                         high_halves(words[2][w], words[3][w]));
            }
        }
    }
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
}

// Adds up what the splits of a sequence and head made; by one block, after all of them.
__device__ __forceinline__ void merge_splits(Attention& shared, const Scratch& scratch, const Part& part) {
    const int first = (part.sequence * KV_HEADS + part.head) * GROUP, next = BATCH * KV_HEADS * GROUP;  // of a split's heads
    for (int i = threadIdx.x; i < part.splits * GROUP; i += THREADS) {
        const float* weights = scratch.split_weights + 2 * (i / GROUP * next + first + i % GROUP);
        shared.split_top[i / GROUP][i % GROUP] = read_fresh(weights);
        shared.split_total[i / GROUP][i % GROUP] = read_fresh(weights + 1);
    }
    sync_block();
    const int head = threadIdx.x * 4 / DIM;
    if (head >= GROUP) return;
    const float4* sums = (const float4*)(scratch.split_sums + (long long)first * DIM) + threadIdx.x;
    float top = NOTHING, total = 0;
    float4 sum{0, 0, 0, 0};
    for (int split = 0; split < part.splits; split++) top = fmaxf(top, shared.split_top[split][head]);
#pragma unroll 8
    for (int split = 0; split < part.splits; split++) {
        const float4 its = read_fresh(sums + (long long)split * next * (DIM / 4));
        const float weight = power_of_two(shared.split_top[split][head] - top);
        total += weight * shared.split_total[split][head];
        sum.x += weight * its.x, sum.y += weight * its.y, sum.z += weight * its.z, sum.w += weight * its.w;
    }
    number* target = scratch.attended + part.sequence * QUERY_ROWS + part.head * GROUP * DIM + 4 * threadIdx.x;
    target[0] = to_number(sum.x / total), target[1] = to_number(sum.y / total);
    target[2] = to_number(sum.z / total), target[3] = to_number(sum.w / total);
}

__device__ __forceinline__ void attend_part(
    Attention& shared, Tile& tile, const Layer& layer, const Model& model, const Step& step, const Scratch& scratch, int item) {
    const Part part(step, item);
    if (part.is_empty()) return;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const number* qkv = scratch.qkv + part.sequence * QKV_ROWS;
    const int heads = GROUP + (part.has_new_token() ? 1 : 0);
    for (int i = warp; i < heads; i += WARPS) {
        if (i < GROUP)
            rotate_head(shared.queries + i * DIM, qkv + (part.head * GROUP + i) * DIM, layer.query_norm, model, part.past);
        else
            rotate_head(shared.key, qkv + QUERY_ROWS + part.head * DIM, layer.key_norm, model, part.past);
    }
    if (part.has_new_token() && warp == WARPS - 1 && threadIdx.x % 32 < DIM / 8) {
        const uint4* values = (const uint4*)(qkv + QUERY_ROWS + (KV_HEADS + part.head) * DIM);
        ((uint4*)shared.value)[threadIdx.x % 32] = read_fresh(values + threadIdx.x % 32);
    }
    sync_block();
    if (part.has_new_token() && threadIdx.x < DIM / 4) {  // for later steps; this one's tiles have it from shared memory
        const bool is_key = threadIdx.x < DIM / 8;
        number* row = (is_key ? layer.keys : layer.values) + part.row(part.past);
        ((uint4*)row)[threadIdx.x % (DIM / 8)] = ((const uint4*)(is_key ? shared.key : shared.value))[threadIdx.x % (DIM / 8)];
    }
    float sums[DIM / 8][4] = {}, top = NOTHING, total = 0;
    attend_tiles(shared, tile, layer, part, sums, top, total);
    if (t == 0) shared.top[warp][g] = top, shared.total[warp][g] = total;
    sync_block();
    float highest = NOTHING;
    for (int i = 0; i < WARPS; i++) highest = fmaxf(highest, shared.top[i][g]);
    const float weight = power_of_two(top - highest);
    if (g < GROUP)
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
            float* target = shared.sums[warp][g] + 64 * (n / 8) + 16 * t + n % 8;
            target[0] = sums[n][0] * weight, target[8] = sums[n][1] * weight;
        }
    sync_block();
    for (int i = threadIdx.x; i < GROUP * DIM; i += THREADS) {
        const int head = i / DIM;
        float best = NOTHING, all = 0, sum = 0;
        for (int w = 0; w < WARPS; w++) best = fmaxf(best, shared.top[w][head]);
        for (int w = 0; w < WARPS; w++) {
            all += shared.total[w][head] * power_of_two(shared.top[w][head] - best);
            sum += shared.sums[w][head][i % DIM];
        }
        if (part.splits == 1) {
            scratch.attended[part.sequence * QUERY_ROWS + part.head * GROUP * DIM + i] = to_number(sum / all);
            continue;
        }
        const int at = (item * GROUP + head);
        scratch.split_sums[(long long)at * DIM + i % DIM] = sum;
        if (i % DIM == 0) scratch.split_weights[2 * at] = best, scratch.split_weights[2 * at + 1] = all;
    }
    sync_block();
    if (part.splits == 1) return;
    unsigned* counter = scratch.counters + 2 + part.sequence * KV_HEADS + part.head;
    if (threadIdx.x == 0) shared.before = count(counter);
    sync_block();
    if ((int)shared.before != part.splits - 1) return;
    order();
    merge_splits(shared, scratch, part);
    if (threadIdx.x == 0) *counter = 0;
}
