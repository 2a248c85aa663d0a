// Rotary embedding, the new token's place in the cache, and attention over paged keys and values.
//
// Each split of a sequence leaves sums and weights. Few splits are merged by whoever reads the result, many by the block that
// is through last.

constexpr float NOTHING = -1e30f;  // a score below all others; finite, so that differences are numbers

struct Scratch {            // in GPU memory, shared by all blocks
    number* hidden;         // [BATCH, HIDDEN], the residual stream
    number* qkv;            // [BATCH, QKV_ROWS]
    number* attended;       // [BATCH, QUERY_ROWS]
    number* gated;          // [BATCH, INNER]
    float* split_sums;      // [SPLITS, BATCH, QUERY_ROWS]
    float* split_weights;   // [SPLITS, BATCH, HEADS, 2], highest score and sum of weights
    unsigned* counters;     // of barriers, of blocks that are through, and of splits [BATCH, KV_HEADS]; zero between steps
};

// Where four sums of a head lie: so that lanes of several heads write to different banks.
__device__ __forceinline__ int four(int head, int nth) { return head * (DIM / 4) + (nth ^ (head >> 1 & 1) ^ (head & 4)); }

__device__ __forceinline__ uint2 four_numbers(float4 of, float by) {
    auto two = [&](float low, float high) { return to_number(low / by) | (unsigned)to_number(high / by) << 16; };
    return {two(of.x, of.y), two(of.z, of.w)};
}

// What up to MOST splits made of FOURS x 4 numbers of a head. All of it is on its way before the first is used.
template <int MOST, int FOURS>
struct Partials {
    float4 sums[MOST][FOURS];
    float2 weights[MOST];

    // Of the numbers from `row` on, of QUERY_ROWS.
    __device__ __forceinline__ void load(const Scratch& scratch, int sequence, int row, int count) {
        const int at = anew(sequence * QUERY_ROWS + row);
        const float2* its_weights = (const float2*)scratch.split_weights + at / DIM;
        const float4* its_sums = (const float4*)(scratch.split_sums + at);
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            weights[i] = {NOTHING, 0};  // a register that is set sometimes is kept through all phases
#pragma unroll
            for (int n = 0; n < FOURS; n++) sums[i][n] = {0, 0, 0, 0};
            if (i >= count) continue;
            weights[i] = read_fresh(its_weights + i * BATCH * HEADS);
#pragma unroll
            for (int n = 0; n < FOURS; n++) sums[i][n] = read_fresh(its_sums + i * BATCH * (QUERY_ROWS / 4) + n);
        }
    }
    __device__ __forceinline__ void merge(uint2 (&merged)[FOURS]) const {
        float top = NOTHING, total = 0;
        float4 sum[FOURS] = {};
#pragma unroll
        for (int i = 0; i < MOST; i++) top = fmaxf(top, weights[i].x);
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            const float weight = power_of_two(weights[i].x - top);
            total += weight * weights[i].y;
#pragma unroll
            for (int n = 0; n < FOURS; n++) {
                const float4 its = sums[i][n];
                sum[n].x += weight * its.x, sum[n].y += weight * its.y, sum[n].z += weight * its.z, sum[n].w += weight * its.w;
            }
        }
#pragma unroll
        for (int n = 0; n < FOURS; n++) merged[n] = four_numbers(sum[n], total);
    }
};

// Numbers [from, from + count) of each sequence's result into `target`, where sequences begin `apart` numbers after each other.
__device__ __forceinline__ void load_attended(
    number* target, int apart, const int* past_lengths, const Scratch& scratch, int from, int count) {
    constexpr int AT_ONCE = 8 / DIRECT > 0 ? 8 / DIRECT : 1;
    const int eights = count / 8;  // of a sequence
    for (int first = anew(threadIdx.x); first < BATCH * eights; first += AT_ONCE * THREADS) {
        Partials<DIRECT, 2> read[AT_ONCE];
        uint4 plain[AT_ONCE];
        bool late[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = first + i * THREADS, row = from + at % eights * 8;
            const bool is_there = at < BATCH * eights;
            const int sequence = is_there ? at / eights : 0;
            const Splits splits(past_lengths[sequence]);
            late[i] = splits.late, plain[i] = {0, 0, 0, 0};
            read[i].load(scratch, sequence, row, is_there && splits.late ? splits.count : 0);
            if (is_there && !splits.late)
                plain[i] = read_fresh((const uint4*)(scratch.attended + sequence * QUERY_ROWS + row));
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = first + i * THREADS;
            if (at >= BATCH * eights) continue;
            uint2 merged[2];
            read[i].merge(merged);
            const uint4 its = late[i] ? uint4{merged[0].x, merged[0].y, merged[1].x, merged[1].y} : plain[i];
            *(uint4*)(target + at / eights * apart + place_of(at % eights) * 8) = arranged(its);
        }
    }
    sync_block();
}

// One head of queries or keys [DIM], normalized if the model does so, and rotated; by one warp. `put` gets each number.
template <class Put>
__device__ __forceinline__ void rotate_head(const Part& part, const number* source, const number* norm, Put put) {
    const int lane = anew(threadIdx.x) % 32;
    number low_gains[PAIRS], high_gains[PAIRS];
    float low[PAIRS], high[PAIRS], squares = 0;
#pragma unroll
    for (int i = 0; QK_NORM && i < PAIRS; i++)
        low_gains[i] = norm[lane + 32 * i], high_gains[i] = norm[lane + 32 * i + DIM / 2];
    number read[2][PAIRS];
#pragma unroll
    for (int i = 0; i < PAIRS; i++)
        for (int n = 0; n < 2; n++) read[n][i] = read_fresh(source + lane + 32 * i + n * (DIM / 2));
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        low[i] = to_float(read[0][i]), high[i] = to_float(read[1][i]);
        squares += low[i] * low[i] + high[i] * high[i];
    }
    if (QK_NORM) {
        for (int mask = 16; mask; mask /= 2) squares += shuffle_xor(squares, mask);
        const float scale = inverse_root(squares / DIM + EPSILON);
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            low[i] = to_float(to_number(low[i] * scale * to_float(low_gains[i])));
            high[i] = to_float(to_number(high[i] * scale * to_float(high_gains[i])));
        }
    }
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        put(lane + 32 * i, to_number(low[i] * part.cosines[i] - high[i] * part.sines[i]));
        put(lane + 32 * i + DIM / 2, to_number(high[i] * part.cosines[i] + low[i] * part.sines[i]));
    }
}

// A warp's tiles: of each head the highest score and the sum of weights, lane (g, t) has head g's; and sums [DIM, heads] in
// the layout of tensor core products: sums[n] are dims 64 * (n / 4) + 8 * g + 2 * (n % 4) + 0, 1 of heads 2t + 0, 1.
__device__ __forceinline__ void attend_tiles(
    const Attention& shared, Tile& tile, const Layer& layer, const Part& part, float (&sums)[DIM / 16][4], float& top,
    float& total) {
    const int thread = anew(threadIdx.x), g = thread % 32 / 4, t = thread % 4;
    constexpr float SCALE = 1.4426950408889634f / ROOT_OF_DIM;  // scores as powers of two
    uint4 query[DIM / 32];
#pragma unroll
    for (int c = 0; c < DIM / 32; c++)
        query[c] = g < GROUP ? *(const uint4*)(shared.queries + g * QUERY_STRIDE + 32 * c + 8 * t) : uint4{0, 0, 0, 0};
#pragma unroll 1
    for (int from = part.first_token(); from < part.end; from += WARPS * TILE) {
        const bool more = from + WARPS * TILE < part.end;
        unsigned key_rows[2], value_rows[4];
        if (more) part.find_rows(key_rows, value_rows, from + WARPS * TILE);
        tile.put_new_token(shared, part.past, from);
        float scores[2][4] = {}, highest = NOTHING;
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int c = 0; c < DIM / 32; c++) {
                const uint4 keys = numbers_of(tile.keys[half][c]);
                multiply(scores[half], query[c].x, 0, query[c].y, 0, keys.x, keys.y);
                multiply(scores[half], query[c].z, 0, query[c].w, 0, keys.z, keys.w);
            }
            for (int i = 0; i < 2; i++) {
                const int token = from + 8 * half + 2 * t + i;
                const bool seen = token < part.end && (!WINDOW || token > part.past - WINDOW);
                scores[half][i] = seen ? scores[half][i] * SCALE : NOTHING;
                highest = fmaxf(highest, scores[half][i]);
            }
        }
        if (more) tile.load_keys(layer, key_rows);
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
        if (from != part.first_token()) {
            const float low = shuffle(shrink, 8 * t), high = shuffle(shrink, 8 * t + 4);  // of heads 2t and 2t + 1
#pragma unroll
            for (int n = 0; n < DIM / 16; n++) sums[n][0] *= low, sums[n][1] *= high, sums[n][2] *= low, sums[n][3] *= high;
        }
#pragma unroll
        for (int c = 0; c < DIM / 64; c++) {
            unsigned words[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint4 values = numbers_of(tile.values[c][i]);
                words[i][0] = values.x, words[i][1] = values.y, words[i][2] = values.z, words[i][3] = values.w;
            }
#pragma unroll
            for (int w = 0; w < 4; w++)
                multiply(sums[4 * c + w], low_halves(words[0][w], words[1][w]), high_halves(words[0][w], words[1][w]),
                         low_halves(words[2][w], words[3][w]), high_halves(words[2][w], words[3][w]), weights[0], weights[1]);
        }
        if (more) tile.load_values(layer, value_rows);
    }
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
}

// The queries and, for the block that has it, the new token, from what was projected into shared memory and the cache.
__device__ __forceinline__ void put_queries(Attention& shared, const Layer& layer, const Scratch& scratch, const Part& part) {
    const int thread = anew(threadIdx.x), warp = thread / 32, lane = thread % 32;
    const number* qkv = scratch.qkv + part.sequence * QKV_ROWS;
    const bool is_new = part.has_new_token();
    for (int i = warp; i < GROUP + is_new; i += WARPS) {
        if (i < GROUP)
            rotate_head(part, qkv + (part.head * GROUP + i) * DIM, layer.query_norm,
                        [&](int d, number value) { shared.queries[i * QUERY_STRIDE + d] = value; });
        else
            rotate_head(part, qkv + QUERY_ROWS + part.head * DIM, layer.key_norm,
                        [&](int d, number value) { shared.key[d] = to_stored(value); });
    }
    if (is_new && warp == WARPS - 1)
        for (int d = lane; d < DIM; d += 32)
            shared.value[d] = to_stored(read_fresh(qkv + QUERY_ROWS + (KV_HEADS + part.head) * DIM + d));
    sync_block();
    constexpr int PIECES = DIM * sizeof(stored) / 16;  // of 16 bytes, of a row
    if (is_new && thread < 2 * PIECES) {  // for later steps; this one's tiles have it from shared memory
        const bool is_key = thread < PIECES;
        stored* row = (stored*)(is_key ? layer.keys : layer.values) + (size_t)part.row(part.past) * DIM;
        ((uint4*)row)[thread % PIECES] = ((const uint4*)(is_key ? shared.key : shared.value))[thread % PIECES];
    }
}

// Attends to a part of a layer's tokens; the first tile was loaded before.
__device__ __forceinline__ void attend_part(
    Attention& shared, Tile& tile, const Layer& layer, const Scratch& scratch, const Part& part) {
    if (part.is_empty()) return;
    const int thread = anew(threadIdx.x), warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
    put_queries(shared, layer, scratch, part);
    float sums[DIM / 16][4] = {}, top = NOTHING, total = 0;
    attend_tiles(shared, tile, layer, part, sums, top, total);
    if (t == 0) shared.top[warp][g] = top, shared.total[warp][g] = total;
    float4* own = (float4*)shared.sums[warp];
#pragma unroll
    for (int n = 0; n < DIM / 16; n += 2)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 its{sums[n][i], sums[n][i + 2], sums[n + 1][i], sums[n + 1][i + 2]};
            if (2 * t + i < GROUP) own[four(2 * t + i, 16 * (n / 4) + 2 * g + n % 4 / 2)] = its;
        }
    sync_block();
    const bool is_partial = part.splits.count > 1 || part.splits.late;
    for (int i = thread; i < GROUP * DIM / 4; i += THREADS) {
        const int head = i / (DIM / 4);
        float best = NOTHING, all = 0;
        float4 sum{0, 0, 0, 0};
        for (int w = 0; w < WARPS; w++) best = fmaxf(best, shared.top[w][head]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float weight = power_of_two(shared.top[w][head] - best);
            const float4 its = ((const float4*)shared.sums[w])[four(head, i % (DIM / 4))];
            all += shared.total[w][head] * weight;
            sum.x += weight * its.x, sum.y += weight * its.y, sum.z += weight * its.z, sum.w += weight * its.w;
        }
        const int row = part.head * GROUP * DIM + 4 * i;  // of QUERY_ROWS
        if (!is_partial) {
            *(uint2*)(scratch.attended + part.sequence * QUERY_ROWS + row) = four_numbers(sum, all);
            continue;
        }
        const int at = part.split * BATCH + part.sequence;
        *(float4*)(scratch.split_sums + (long long)at * QUERY_ROWS + row) = sum;
        if (i % (DIM / 4) == 0) ((float2*)scratch.split_weights)[at * HEADS + part.head * GROUP + head] = {best, all};
    }
    sync_block();
    if (!is_partial || part.splits.late) return;
    unsigned* counter = scratch.counters + 2 + part.sequence * KV_HEADS + part.head;
    if (threadIdx.x == 0) shared.before = count(counter);
    sync_block();
    if ((int)shared.before != part.splits.count - 1) return;
    order();
    for (int i = thread; i < GROUP * DIM / 4; i += THREADS) {
        const int row = part.head * GROUP * DIM + 4 * i;
        Partials<SPLITS, 1> read;
        uint2 merged[1];
        read.load(scratch, part.sequence, row, part.splits.count);
        read.merge(merged);
        *(uint2*)(scratch.attended + part.sequence * QUERY_ROWS + row) = merged[0];
    }
    if (threadIdx.x == 0) *counter = 0;
}

// A block's share of a layer's attention: its part, whose first tile was loaded before, and more if there are more than blocks.
__device__ __forceinline__ void attend(
    Attention& shared, Tile& tile, const Layer& layer, const Model& model, const Step& step, const Scratch& scratch,
    const Part& part) {
    attend_part(shared, tile, layer, scratch, part);
    for (int item = blockIdx.x + BLOCKS; PARTS > BLOCKS && item < PARTS; item += BLOCKS) {
        const Part another(step, model, item);
        tile.load(layer, another);
        sync_block();
        attend_part(shared, tile, layer, scratch, another);
    }
}
