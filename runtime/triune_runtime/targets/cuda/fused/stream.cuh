// The model's weights as one stream: each warp copies what it will multiply into a ring of its own in shared memory, many
// stages ahead and across the ends of phases and layers. So the memory is never idle while blocks wait for each other.
//
// Each warp takes, of every group of 16 rows, every eighth stretch of 64 numbers: a stage is 16 rows x 64 numbers, 2 KB. Lane
// (g, t) = (lane / 4, lane % 4) copies from rows g and g + 8 the 16 bytes t and t + 4 of the stretch's eight, and reads them
// itself: they are its part of the operands of four tensor core products, if the order of the numbers of a row, over which
// a sum goes, is another one for weights and vectors alike.

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int QUERY_ROWS = HEADS * DIM, QKV_ROWS = (HEADS + 2 * KV_HEADS) * DIM;
constexpr int STRETCH = 64;            // numbers of a row in a stage
constexpr int STAGE_BYTES = 16 * 128;  // of a warp

enum Phase { QKV, OUT, GATE_UP, DOWN, HEAD, END };

struct Layer {  // addresses in GPU memory, in the order of decoder.py's table
    const number *attention_norm, *query, *key, *value, *query_bias, *key_bias, *value_bias, *query_norm, *key_norm;
    const number *out, *mlp_norm, *gate, *up, *down;
    number *keys, *values;  // [blocks, BLOCK_TOKENS, KV_HEADS, DIM]
};
struct Model {
    const number *embedding, *norm, *head, *cosines, *sines;  // the last two [positions, DIM / 2]
};

__device__ constexpr int length_of(int phase) {  // numbers of a row
    return phase == OUT ? QUERY_ROWS : phase == DOWN ? INNER : HIDDEN;
}
__device__ constexpr int groups_of(int phase) {  // of 16 rows; with GATE_UP 8 of each matrix
    return phase == QKV ? QKV_ROWS / 16 : phase == GATE_UP ? INNER / 8 : phase == HEAD ? (VOCABULARY + 15) / 16 : HIDDEN / 16;
}
__device__ constexpr bool runs(int phase) { return (PHASES >> phase) & 1; }

// A block's first group of a phase; then every BLOCKS-th. The last blocks, which have one group of GATE_UP less, come first.
__device__ __forceinline__ int first_group(int phase) {
    return phase == DOWN ? BLOCKS - 1 - (int)blockIdx.x : (int)blockIdx.x;
}

struct Stream {
    const Layer* layers;
    const Model* model;
    int layer, phase, group, stretch;  // what is copied next
    const char *low, *high;            // this lane's two rows of `group`
    char* ring;                        // this lane's part of the first stage
    int slot;                          // the oldest stage

    __device__ __forceinline__ void start(const Layer* all_layers, const Model* the_model, char* rings) {
        layers = all_layers, model = the_model;
        ring = rings + (threadIdx.x / 32) * (STAGES * STAGE_BYTES) + (threadIdx.x % 32) * 16;
        layer = phase = slot = 0;
        seek();
        for (int i = 0; i < STAGES; i++) {
            copy();
            slot++;
        }
        slot = 0;
    }

    // The next stage's weights: rows g and g + 8, the first and the second half of the stretch.
    __device__ __forceinline__ void take(uint4& low0, uint4& low1, uint4& high0, uint4& high1) {
        wait_stages<STAGES - 1>();
        const uint4* stage = (const uint4*)(ring + slot * STAGE_BYTES);
        low0 = stage[0], low1 = stage[32], high0 = stage[64], high1 = stage[96];
    }

    // After the last use of what was taken: its place is filled anew.
    __device__ __forceinline__ void refill() {
        copy();
        slot = slot + 1 == STAGES ? 0 : slot + 1;
    }

    __device__ __forceinline__ void copy() {
        if (phase != END) {
            char* stage = ring + slot * STAGE_BYTES;
            const int offset = stretch * (2 * STRETCH);
            copy_async(stage, low + offset);
            copy_async(stage + 512, low + offset + 64);
            copy_async(stage + 1024, high + offset);
            copy_async(stage + 1536, high + offset + 64);
            stretch += WARPS;
            if (stretch * STRETCH >= length_of(phase)) {
                group += BLOCKS;
                stretch = threadIdx.x / 32;
                if (group < groups_of(phase))
                    locate();
                else {
                    next_phase();
                    seek();
                }
            }
        }
        end_stage();
    }

    __device__ __forceinline__ void next_phase() {
        if (phase != DOWN) {
            phase++;
        } else {
            layer++;
            phase = layer < LAYERS ? QKV : HEAD;
        }
    }

    // Goes on to the first phase, from this one on, that has work for this warp.
    __device__ __forceinline__ void seek() {
        const int warp = threadIdx.x / 32;
        while (phase != END && !(runs(phase) && first_group(phase) < groups_of(phase) && warp * STRETCH < length_of(phase)))
            next_phase();
        if (phase == END) return;
        group = first_group(phase);
        stretch = warp;
        locate();
    }

    __device__ __forceinline__ void locate() {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const number *first, *second;  // of rows 0 and 8 of the group
        const size_t length = length_of(phase);
        int row = 16 * group;
        const Layer& weights = layers[layer < LAYERS ? layer : 0];
        if (phase == GATE_UP) {
            first = weights.gate + 8 * group * length;
            second = weights.up + 8 * group * length;
        } else {
            if (phase == QKV) {
                first = weights.query;
                if (row >= QUERY_ROWS + KV_HEADS * DIM)
                    first = weights.value, row -= QUERY_ROWS + KV_HEADS * DIM;
                else if (row >= QUERY_ROWS)
                    first = weights.key, row -= QUERY_ROWS;
            } else {
                first = phase == OUT ? weights.out : phase == DOWN ? weights.down : model->head;
            }
            first += row * length;
            second = first + 8 * length;
        }
        int low_row = g, high_row = g;
        if (VOCABULARY % 16 && phase == HEAD) {  // rows that are not there: any that is
            low_row = min(g, VOCABULARY - 1 - row);
            high_row = min(g, VOCABULARY - 1 - row - 8);  // may be negative: a row before
        }
        low = (const char*)(first + low_row * (long long)length) + 16 * t;
        high = (const char*)(second + high_row * (long long)length) + 16 * t;
    }
};
