// One decode step of a llama, qwen2 or qwen3 model: one token of each of BATCH sequences, all layers, in one launch.
//
// All blocks are on the GPU together, one a multiprocessor, and meet at a barrier after each phase of a layer:
// norm + query, key and value | attention | output + residual | norm + gate and up + SwiGLU | down + residual. At the end:
// norm + head. Weights stream in meanwhile (stream.cuh). Sums are float32; what the graph rounds is rounded here.
//
// Constants, by -D: see decoder.py.

struct Shared {  // the dynamic shared memory
    char* rings;       // [WARPS, STAGES, STAGE_BYTES]
    number* vector;    // [BATCH, stride], what is multiplied by weights; or Attention
    float* partial;    // [WARPS, HELD, BATCH, 16], sums of groups, each warp's
    number* gains;     // [HIDDEN], of the next norm
    float* squares;    // [WARPS]
    int* past_lengths;  // [BATCH]
    Layer* layers;     // [LAYERS]
    Model* model;

    __device__ __forceinline__ explicit Shared(char* at) {
        rings = at, at += WARPS * STAGES * STAGE_BYTES;
        vector = (number*)at, at += VECTOR_BYTES;
        partial = (float*)at, at += WARPS * HELD * BATCH * 16 * 4;
        gains = (number*)at, at += 2 * HIDDEN;
        squares = (float*)at, at += 4 * WARPS;
        past_lengths = (int*)at, at += 4 * 8;
        layers = (Layer*)at, at += LAYERS * sizeof(Layer);
        model = (Model*)at;
    }
};

// What of a vector of `length` numbers lies in shared memory at once, and how far apart the vectors of two sequences begin:
// 64 bytes more, so that lanes of two sequences read different banks.
__device__ constexpr int loaded(int length) { return length <= LOADED ? length : LOADED; }
__device__ constexpr int stride(int length) { return loaded(length) + 32; }

// Waits until all blocks have come this far. `meanwhile` needs nothing of what they do.
template <class Meanwhile>
__device__ __forceinline__ void meet(const Scratch& scratch, unsigned& meetings, Meanwhile meanwhile) {
    sync_block();
    meetings++;
    if (threadIdx.x == 0) count(scratch.counters);
    meanwhile();
    if (threadIdx.x == 0) {
        unsigned looks = 0;
        while (look(scratch.counters) < meetings * BLOCKS) {
            if (++looks == 4000000) give_up();  // seconds: a block is missing, and the GPU must not hang
            wait_a_little();
        }
    }
    sync_block();
}

__device__ __forceinline__ void load_gains(const Shared& shared, const number* gains) {
    for (int i = threadIdx.x; i < HIDDEN / 8; i += THREADS) ((uint4*)shared.gains)[i] = ((const uint4*)gains)[i];
}

// RMSNorm, with the gains that are loaded, of `row(sequence)` [HIDDEN] of every sequence into the shared vector; WARPS / BATCH
// warps a sequence.
template <class Row>
__device__ __forceinline__ void normalize(const Shared& shared, Row row) {
    constexpr int TOGETHER = 32 * WARPS / BATCH, EACH = (HIDDEN / 8 + TOGETHER - 1) / TOGETHER, AT_ONCE = EACH < 8 ? EACH : 8;
    const int sequence = threadIdx.x / TOGETHER, first = threadIdx.x % TOGETHER;
    const uint4* source = (const uint4*)row(sequence);
    number* target = shared.vector + sequence * stride(HIDDEN);
    float squares = 0;
    for (int from = first; from < HIDDEN / 8; from += AT_ONCE * TOGETHER) {
        uint4 read[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            read[i] = from + i * TOGETHER < HIDDEN / 8 ? read_fresh(source + from + i * TOGETHER) : uint4{0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (from + i * TOGETHER < HIDDEN / 8) *(uint4*)(target + 8 * place_of(from + i * TOGETHER)) = read[i];
            const unsigned words[4] = {read[i].x, read[i].y, read[i].z, read[i].w};
            for (unsigned word : words) {
                const float low = to_float(word & 0xffff), high = to_float(word >> 16);
                squares += low * low + high * high;
            }
        }
    }
    for (int mask = 16; mask; mask /= 2) squares += shuffle_xor(squares, mask);
    if (threadIdx.x % 32 == 0) shared.squares[threadIdx.x / 32] = squares;
    sync_block();
    squares = 0;
    for (int i = 0; i < WARPS / BATCH; i++) squares += shared.squares[sequence * (WARPS / BATCH) + i];
    const float scale = inverse_root(squares / HIDDEN + EPSILON);
    for (int at = first; at < HIDDEN / 8; at += TOGETHER) {
        const uint4 gains = *(const uint4*)(shared.gains + 8 * at);
        uint4* eight = (uint4*)(target + 8 * place_of(at));
        auto scaled = [&](unsigned word, unsigned by) {
            const number low = to_number(to_float(word & 0xffff) * scale * to_float(by & 0xffff));
            const number high = to_number(to_float(word >> 16) * scale * to_float(by >> 16));
            return low | (unsigned)high << 16;
        };
        *eight = arranged(
            {scaled(eight->x, gains.x), scaled(eight->y, gains.y), scaled(eight->z, gains.z), scaled(eight->w, gains.w)});
    }
    sync_block();
}

// Copies numbers [from, from + count) of `source` [BATCH, LENGTH] into the shared vector.
template <int LENGTH>
__device__ __forceinline__ void load_vector(const Shared& shared, const number* source, int from, int count) {
    const int eights = count / 8;  // of a sequence
    for (int first = threadIdx.x; first < BATCH * eights; first += 8 * THREADS) {
        uint4 read[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int at = first + i * THREADS;
            const uint4* eight = (const uint4*)(source + at / eights * LENGTH + from) + at % eights;
            read[i] = at < BATCH * eights ? read_fresh(eight) : uint4{0, 0, 0, 0};
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int at = first + i * THREADS;
            number* target = shared.vector + at / eights * stride(LENGTH);
            if (at < BATCH * eights) *(uint4*)(target + place_of(at % eights) * 8) = arranged(read[i]);
        }
    }
    sync_block();
}

// This block's groups of a phase's product. `load(from, count)` brings a part of the vectors into shared memory.
// `finish(early, group, sequence, row, sum, other)` gets each row's sum, of GATE_UP rows 0 to 7 with `other` that of row + 8,
// and what `fetch(group, sequence, row)` read while the sums were made.
template <int PHASE, class Load, class Fetch, class Finish>
__device__ __forceinline__ void product(Stream& stream, const Shared& shared, Load load, Fetch fetch, Finish finish) {
    constexpr int LENGTH = length_of(PHASE), GROUPS = groups_of(PHASE), PART = loaded(LENGTH);
    constexpr int ROWS = PHASE == GATE_UP ? 8 : 16, STRETCH = stretch_of(PHASE);
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    if (first_group(PHASE) >= GROUPS) return;
    if (PART == LENGTH) load(0, LENGTH);
    int held = 0, turn = 0;
    float early = 0;
    for (int group = first_group(PHASE); group < GROUPS; group += BLOCKS) {
        if (held == 0) {
            const int nth = threadIdx.x / (BATCH * ROWS), its = group + nth * BLOCKS;
            if (nth < HELD && its < GROUPS) early = fetch(its, threadIdx.x / ROWS % BATCH, threadIdx.x % ROWS);
        }
        float sums[4][4] = {};  // QUANTIZED: all four, else two
        for (int from = 0; from < LENGTH; from += PART) {
            const int end = min(LENGTH - from, PART);
            if (PART < LENGTH) {
                sync_block();
                load(from, end);
            }
#pragma unroll 1
            for (int at = first_stretch(turn) * STRETCH; at < end; at += WARPS * STRETCH) {
#if HALF && WEIGHT_BITS < 16
                const uint4* x = (const uint4*)(shared.vector + g * stride(LENGTH) + at);
                multiply_blocks<bits_of(PHASE)>(stream, g < BATCH ? x : nullptr, end - at, sums);
#else
                uint4 low0, low1, high0, high1, x0{0, 0, 0, 0}, x1{0, 0, 0, 0};
                if (g < BATCH) {
                    const uint4* x = (const uint4*)(shared.vector + g * stride(LENGTH) + at);
                    x0 = x[t], x1 = x[t + 4];
                }
                stream.take(low0, low1, high0, high1);
                multiply(sums[0], low0.x, high0.x, low0.y, high0.y, x0.x, x0.y);
                multiply(sums[1], low0.z, high0.z, low0.w, high0.w, x0.z, x0.w);
                multiply(sums[0], low1.x, high1.x, low1.y, high1.y, x1.x, x1.y);
                multiply(sums[1], low1.z, high1.z, low1.w, high1.w, x1.z, x1.w);
                stream.refill();
#endif
            }
        }
        turn += stretches_of(PHASE);
        float* partial = shared.partial + (warp * HELD + held) * BATCH * 16 + g;
        for (int i = 0; i < 2; i++)
            if (2 * t + i < BATCH) {
                const int row0 = i, row8 = i + 2;
                partial[(2 * t + i) * 16] = sums[0][row0] + sums[1][row0] + (sums[2][row0] + sums[3][row0]);
                partial[(2 * t + i) * 16 + 8] = sums[0][row8] + sums[1][row8] + (sums[2][row8] + sums[3][row8]);
            }
        if (++held < HELD && group + BLOCKS < GROUPS) continue;
        sync_block();
        for (int i = threadIdx.x; i < held * BATCH * ROWS; i += THREADS) {
            const int nth = i / (BATCH * ROWS), sequence = i / ROWS % BATCH, row = i % ROWS;
            const float* from = shared.partial + (nth * BATCH + sequence) * 16 + row;
            float sum = 0, other = 0;
            for (int w = 0; w < WARPS; w++) {
                sum += from[w * HELD * BATCH * 16];
                if (ROWS == 8) other += from[w * HELD * BATCH * 16 + 8];
            }
            const int its = group - (held - 1 - nth) * BLOCKS;
            finish(i < THREADS ? early : fetch(its, sequence, row), its, sequence, row, sum, other);
        }
        sync_block();
        held = 0;
    }
}

__device__ __forceinline__ float rounded(float value) { return to_float(to_number(value)); }

extern "C" __global__ void __launch_bounds__(THREADS, 1) decode_step(
    const unsigned long long* addresses, const long long* input_ids, const int* past_lengths, const int* block_table,
    int most_blocks, float* logits, number* hidden, number* qkv, number* attended, number* gated, float* split_sums,
    float* split_weights, unsigned* counters) {
    const Step step{input_ids, past_lengths, block_table, most_blocks, logits};
    const Scratch scratch{hidden, qkv, attended, gated, split_sums, split_weights, counters};
    const Shared shared(shared_memory());
    for (int i = threadIdx.x; i < (int)((LAYERS * sizeof(Layer) + sizeof(Model)) / 8); i += THREADS)
        ((unsigned long long*)shared.layers)[i] = addresses[i];
    if (threadIdx.x < BATCH) shared.past_lengths[threadIdx.x] = past_lengths[threadIdx.x];
    sync_block();
    const Model& model = *shared.model;
    Stream stream;
    stream.start(shared.layers, shared.model, shared.rings);
    unsigned meetings = 0;
    load_gains(shared, shared.layers[0].attention_norm);
    const Part part(step, model, blockIdx.x);
    if (ATTENTION) part.fetch(shared.layers[0]);
    sync_block();

    auto nothing = [](int, int, int) { return 0.0f; };
    auto before = [&](int group, int sequence, int row) {
        return to_float(read_fresh(hidden + sequence * HIDDEN + 16 * group + row));
    };
    auto add = [&](float early, int group, int sequence, int row, float sum, float) {
        hidden[sequence * HIDDEN + 16 * group + row] = to_number(rounded(sum) + early);
    };
    auto normalized = [&](int, int) { normalize(shared, [&](int n) { return (const number*)hidden + n * HIDDEN; }); };
    for (int i = 0; i < LAYERS; i++) {
        const Layer& layer = shared.layers[i];
        auto entering = [&](int sequence) {
            return i ? (const number*)hidden + sequence * HIDDEN : model.embedding + input_ids[sequence] * HIDDEN;
        };
        Tile tile;
        if (runs(QKV)) {
            if (i == 0)  // the residual stream begins with the embedding
                for (int at = blockIdx.x * THREADS + threadIdx.x; at < BATCH * HIDDEN; at += BLOCKS * THREADS)
                    hidden[at] = entering(at / HIDDEN)[at % HIDDEN];
            product<QKV>(
                stream, shared, [&](int, int) { normalize(shared, entering); },
                [&](int group, int, int row) {
                    if (!QKV_BIAS) return 0.0f;
                    const int at = 16 * group + row, keys = at - QUERY_ROWS, values = keys - KV_HEADS * DIM;
                    const number* bias = layer.query_bias + at;
                    if (keys >= 0) bias = values >= 0 ? layer.value_bias + values : layer.key_bias + keys;
                    return to_float(*bias);
                },
                [&](float early, int group, int sequence, int row, float sum, float) {
                    qkv[sequence * QKV_ROWS + 16 * group + row] = to_number(rounded(sum) + early);
                });
            meet(scratch, meetings, [&] {
                if (ATTENTION) tile.load(layer, part);
            });
        } else if (ATTENTION) {
            tile.load(layer, part);
        }
        if (ATTENTION) {
            attend(*(Attention*)shared.vector, tile, layer, model, step, scratch, part);
            meet(scratch, meetings, [] {});
        }
        if (runs(OUT)) {
            auto load = [&](int from, int n) {
                DIRECT > 1 ? load_attended(shared.vector, stride(QUERY_ROWS), shared.past_lengths, scratch, from, n)
                           : load_vector<QUERY_ROWS>(shared, attended, from, n);
            };
            product<OUT>(stream, shared, load, before, add);
            meet(scratch, meetings, [&] { load_gains(shared, layer.mlp_norm); });
        }
        if (runs(GATE_UP)) {
            if (blockIdx.x == BLOCKS - 1 && i + 1 < LAYERS) prefetch_small(shared.layers[i + 1]);
            product<GATE_UP>(stream, shared, normalized, nothing,
                             [&](float, int group, int sequence, int row, float gate, float up) {
                                 gate = rounded(gate);
                                 const float open = rounded(gate / (1 + power_of_two(gate * -1.4426950408889634f)));
                                 gated[sequence * INNER + 8 * group + row] = to_number(open * rounded(up));
                             });
            meet(scratch, meetings, [] {});
        }
        if (runs(DOWN)) {
            auto load = [&](int from, int n) { load_vector<INNER>(shared, gated, from, n); };
            product<DOWN>(stream, shared, load, before, add);
            const number* next = i + 1 < LAYERS ? shared.layers[i + 1].attention_norm : model.norm;
            meet(scratch, meetings, [&] {
                if (ATTENTION && i + 1 < LAYERS) part.fetch(shared.layers[i + 1]);
                load_gains(shared, next);
            });
        }
    }
    if (runs(END))  // meetings alone, to measure them
        for (int i = 0; i < LAYERS; i++) meet(scratch, meetings, [] {});
    if (runs(HEAD))
        product<HEAD>(stream, shared, normalized, nothing, [&](float, int group, int sequence, int row, float sum, float) {
            const int at = 16 * group + row;
            if (at < VOCABULARY) logits[(long long)sequence * VOCABULARY + at] = sum;
        });
    if (threadIdx.x == 0 && count(counters + 1) == BLOCKS - 1)  // the last block, when no other looks any more
        counters[0] = counters[1] = 0;
}
