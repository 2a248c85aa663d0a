// The model's weights as one stream: each warp copies what it will multiply into a ring of its own in shared memory, many
// stages ahead and across the ends of phases and layers. So the memory is never idle while blocks wait for each other.
//
// Each warp takes, of every group of 16 rows, every eighth stretch of 128 bytes: a stage is 16 rows x 128 bytes, 2 KB. Lane
// (g, t) = (lane / 4, lane % 4) copies from rows g and g + 8 the 16 bytes t and t + 4 of the stretch's eight, and reads them
// itself: they are its part of the operands of tensor core products, if the order of the numbers of a row, over which
// a sum goes, is another one for weights and vectors alike. Scales of quantized weights come beside them (blocks.cuh).

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int QUERY_ROWS = HEADS * DIM, QKV_ROWS = (HEADS + 2 * KV_HEADS) * DIM;
constexpr int STRETCH_BYTES = 128;  // of a row in a stage
constexpr bool QUANTIZED = WEIGHT_BITS < 16;
constexpr int STAGE_WEIGHTS = 16 * STRETCH_BYTES, STAGE_BYTES = STAGE_WEIGHTS + (QUANTIZED ? 256 : 0);  // of a warp
constexpr int SCALED = 32;  // numbers of a row that share a scale

enum Phase { QKV, OUT, GATE_UP, DOWN, HEAD, END };

struct Layer {  // addresses in GPU memory, in the order of decoder.py's table
    const number* attention_norm;
    const char *query, *key, *value;
    const number *query_bias, *key_bias, *value_bias, *query_norm, *key_norm;
    const char* out;
    const number* mlp_norm;
    const char *gate, *up, *down;
    number *keys, *values;  // [blocks, BLOCK_TOKENS, KV_HEADS, DIM]
#if WEIGHT_BITS < 16
    const number *query_scale, *key_scale, *value_scale, *out_scale, *gate_scale, *up_scale, *down_scale;
#endif
};
struct Model {
    const number *embedding, *norm;
    const char* head;
    const number *cosines, *sines;  // [positions, DIM / 2]
#if WEIGHT_BITS < 16
    const number* head_scale;
#endif
};

__device__ constexpr int length_of(int phase) {  // numbers of a row
    return phase == OUT ? QUERY_ROWS : phase == DOWN ? INNER : HIDDEN;
}
__device__ constexpr int bits_of(int phase) { return phase == HEAD ? HEAD_BITS : WEIGHT_BITS; }
__device__ constexpr int row_bytes(int phase) { return length_of(phase) / 8 * bits_of(phase); }
__device__ constexpr int stretch_of(int phase) { return STRETCH_BYTES * 8 / bits_of(phase); }  // numbers
__device__ constexpr int stretches_of(int phase) { return (row_bytes(phase) + STRETCH_BYTES - 1) / STRETCH_BYTES; }
__device__ constexpr int groups_of(int phase) {  // of 16 rows; with GATE_UP 8 of each matrix
    return phase == QKV ? QKV_ROWS / 16 : phase == GATE_UP ? INNER / 8 : phase == HEAD ? (VOCABULARY + 15) / 16 : HIDDEN / 16;
}
__device__ constexpr bool runs(int phase) { return (PHASES >> phase) & 1; }

// A block's first group of a phase; then every BLOCKS-th. The last blocks, which have one group of GATE_UP less, come first.
__device__ __forceinline__ int first_group(int phase) {
    return phase == DOWN ? BLOCKS - 1 - (int)blockIdx.x : (int)blockIdx.x;
}

// This warp's first stretch of a group, before which there were `turn` stretches in the block's groups. Rows of few bits are
// so short that not each warp has a part of each group: warps take stretches in turn, from group to group.
__device__ __forceinline__ int first_stretch(int turn) {
    const int warp = threadIdx.x / 32;
    return QUANTIZED ? (warp - turn) & (WARPS - 1) : warp;
}

struct Stream {
    const Layer* layers;
    const Model* model;
    int layer, phase, group, stretch;  // what is copied next
    int turn;                          // stretches of this phase's groups before this one
    const char *low, *high;            // this lane's two rows of `group`
    const char *low_scale, *high_scale;
    char* rings;  // this warp's first stage
    int slot;     // the oldest stage

    __device__ __forceinline__ void start(const Layer* all_layers, const Model* the_model, char* all_rings) {
        layers = all_layers, model = the_model;
        rings = all_rings + (threadIdx.x / 32) * (STAGES * STAGE_BYTES);
        layer = phase = slot = 0;
        enter();
        for (int i = 0; i < STAGES; i++) {
            copy();
            slot++;
        }
        slot = 0;
    }

    // The next stage's weights: rows g and g + 8, the first and the second half of the stretch.
    __device__ __forceinline__ void take(uint4& low0, uint4& low1, uint4& high0, uint4& high1) {
        wait_stages<STAGES - 1>();
        const uint4* stage = (const uint4*)(rings + slot * STAGE_BYTES) + threadIdx.x % 32;
        low0 = stage[0], low1 = stage[32], high0 = stage[64], high1 = stage[96];
    }

    // After `take`, and a `sync_warp` that lets each lane see what others copied: the stage's scales [16 rows, 8].
    __device__ __forceinline__ const number* scales() const {
        return (const number*)(rings + slot * STAGE_BYTES + STAGE_WEIGHTS);
    }

    // After the last use of what was taken: its place is filled anew.
    __device__ __forceinline__ void refill() {
        copy();
        slot = slot + 1 == STAGES ? 0 : slot + 1;
    }

    __device__ __forceinline__ void copy() {
        if (phase != END) {
            const int t = threadIdx.x % 4;
            char* stage = rings + slot * STAGE_BYTES + threadIdx.x % 32 * 16;
            const int first = inside(stretch * STRETCH_BYTES + 16 * t, row_bytes(phase));
            const int second = inside(stretch * STRETCH_BYTES + 16 * t + 64, row_bytes(phase));
            copy_async(stage, low + first);
            copy_async(stage + 512, low + second);
            copy_async(stage + 1024, high + first);
            copy_async(stage + 1536, high + second);
            if (QUANTIZED) {
                const int scales = 2 * stretch_of(phase) / SCALED, row = 2 * length_of(phase) / SCALED;  // bytes
                if (4 * t < scales) {
                    const int at = inside(stretch * scales + 4 * t, row);
                    char* target = rings + slot * STAGE_BYTES + STAGE_WEIGHTS + threadIdx.x % 32 * 4;
                    copy_async_word(target, low_scale + at);
                    copy_async_word(target + 128, high_scale + at);
                }
            }
            stretch += WARPS;
            if (stretch >= stretches_of(phase)) {
                next_group();
                if (!find()) {
                    next_phase();
                    enter();
                }
            }
        }
        end_stage();
    }

    // Bytes from a row's beginning; for what lies behind its end, which is multiplied by zeros, any that are there.
    __device__ __forceinline__ static int inside(int at, int end) {
        constexpr bool WHOLE = row_bytes(QKV) % STRETCH_BYTES == 0 && row_bytes(OUT) % STRETCH_BYTES == 0 &&
                               row_bytes(DOWN) % STRETCH_BYTES == 0 && row_bytes(HEAD) % STRETCH_BYTES == 0;
        return WHOLE || at < end ? at : 0;
    }

    __device__ __forceinline__ void next_phase() {
        if (phase != DOWN) {
            phase++;
        } else {
            layer++;
            phase = layer < LAYERS ? QKV : HEAD;
        }
    }

    __device__ __forceinline__ void next_group() {
        group += BLOCKS;
        turn += stretches_of(phase);
    }

    // Goes on to the first phase, from this one on, that has work for this warp.
    __device__ __forceinline__ void enter() {
        for (; phase != END; next_phase()) {
            group = first_group(phase);
            turn = 0;
            if (runs(phase) && find()) return;
        }
    }

    // Goes on to the first group, from this one on, that has work for this warp; false: there is none.
    __device__ __forceinline__ bool find() {
        for (; group < groups_of(phase); next_group()) {
            stretch = first_stretch(turn);
            if (stretch < stretches_of(phase)) {
                locate();
                return true;
            }
        }
        return false;
    }

    __device__ __forceinline__ void locate() {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const char *first, *second;  // matrices of rows 0 to 7 and 8 to 15 of the group
        int row = 16 * group, other;
        const Layer& weights = layers[layer < LAYERS ? layer : 0];
        if (phase == GATE_UP) {
            first = weights.gate, second = weights.up;
            row = other = 8 * group;
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
            second = first;
            other = row + 8;
        }
        row += g, other += g;
        if (VOCABULARY % 16 && phase == HEAD) {  // rows that are not there: any that is
            row = min(row, VOCABULARY - 1);
            other = min(other, VOCABULARY - 1);
        }
        low = first + row * (long long)row_bytes(phase);
        high = second + other * (long long)row_bytes(phase);
#if WEIGHT_BITS < 16
        const number* first_scale = phase == OUT ? weights.out_scale : phase == DOWN ? weights.down_scale : model->head_scale;
        if (phase == QKV)
            first_scale = first == weights.query ? weights.query_scale
                          : first == weights.key ? weights.key_scale
                                                 : weights.value_scale;
        const number* second_scale = first_scale;
        if (phase == GATE_UP) first_scale = weights.gate_scale, second_scale = weights.up_scale;
        low_scale = (const char*)(first_scale + row * (long long)(length_of(phase) / SCALED));
        high_scale = (const char*)(second_scale + other * (long long)(length_of(phase) / SCALED));
#endif
    }
};

__device__ __forceinline__ void prefetch_numbers(const number* numbers, int length) {
    for (int i = threadIdx.x * 64; i < length; i += THREADS * 64) prefetch(numbers + i);
}

// Small tensors that a layer's phases wait for.
__device__ __forceinline__ void prefetch_small(const Layer& layer) {
    prefetch_numbers(layer.attention_norm, HIDDEN);
    prefetch_numbers(layer.mlp_norm, HIDDEN);
    if (QKV_BIAS) {
        prefetch_numbers(layer.query_bias, QUERY_ROWS);
        prefetch_numbers(layer.key_bias, KV_HEADS * DIM);
        prefetch_numbers(layer.value_bias, KV_HEADS * DIM);
    }
}
