// Chooses one token of each row of logits, a block of threads a row, as `sampling.columns.Columns` defines it.
//
// Equal to the host to the bit: scores are made by the same float32 operations, each rounded by itself, and all weights are
// integers (`sampling.weights`), whose sums do not depend on their order.

__device__ u64 mixed(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

__device__ double uniform_number(u64 seed, u64 position) {
    return (double)(mixed(mixed(seed) + (position + 1) * 0x9E3779B97F4A7C15ull) >> 11) * (1.0 / 9007199254740992.0);
}

__device__ bool no_number(float logit) { return !(logit < __int_as_float(0x7f800000)); }  // NaN, or infinity

// Change the logits of the row's sites, in place; whether each was a number before.
__device__ bool adjust(const Row& row, const Head& head, const Tokens& all) {
    bool numbers = true;
    float* logits = all.logits;
    const Site* sites = head.sites;
    const int begins[3] = {row.biases, row.seen, row.bans}, ends[3] = {row.biases_end, row.seen_end, row.bans_end};
    for (u32 kind = 0; kind < 3; ++kind)
        for (int i = begins[kind] + threadIdx.x; i < ends[kind]; i += blockDim.x) {
            head.saved[i] = logits[sites[i].token];
            if (no_number(head.saved[i])) numbers = false;
        }
    __syncthreads();
    for (int i = row.biases + threadIdx.x; i < row.biases_end; i += blockDim.x) {
        int token = sites[i].token, j = row.biases;
        while (sites[j].token != token) ++j;
        if (j < i) continue;  // the thread of the token's first bias adds them all, in their order
        float score = logits[token];
        for (; j < row.biases_end; ++j)
            if (sites[j].token == token) score = __fadd_rn(score, sites[j].value);
        logits[token] = score;
    }
    __syncthreads();
    for (int i = row.seen + threadIdx.x; i < row.seen_end; i += blockDim.x) {
        float score = logits[sites[i].token], count = sites[i].value;
        score = score > 0 ? __fdiv_rn(score, row.repetition) : __fmul_rn(score, row.repetition);
        if (count > 0) score = __fsub_rn(score, __fadd_rn(row.presence, __fmul_rn(row.frequency, count)));
        logits[sites[i].token] = score;
    }
    __syncthreads();
    // Bans and the mask come last: what a token has grown to before, be it no number any more, does not count.
    for (u32 kind = 0; kind < 3; ++kind)
        for (int i = begins[kind] + threadIdx.x; i < ends[kind]; i += blockDim.x)
            if (kind == 2 || !allowed(all, sites[i].token)) logits[sites[i].token] = -__int_as_float(0x7f800000);
    __syncthreads();
    return numbers;
}

__device__ void restore(const Row& row, const Head& head, float* logits) {
    const int begins[3] = {row.biases, row.seen, row.bans}, ends[3] = {row.biases_end, row.seen_end, row.bans_end};
    __syncthreads();
    for (u32 kind = 0; kind < 3; ++kind)
        for (int i = begins[kind] + threadIdx.x; i < ends[kind]; i += blockDim.x) logits[head.sites[i].token] = head.saved[i];
    __syncthreads();
}

// tokens, values: of each row the token, and its logit; of a row that has none to choose token 0 and NaN.
extern "C" __global__ void __launch_bounds__(1024, 1) choose(
    float* logits, int vocabulary, int mask_words, const Head* head, const Row* rows, const u32* coarse, long long* tokens, float* values
) {
    const Row& row = rows[blockIdx.x];
    float* own = logits + (u64)blockIdx.x * vocabulary;
    Tokens all = {own, (u32)vocabulary, row.mask ? head->masks + (u64)(row.mask - 1) * mask_words : nullptr};
    bool numbers = adjust(row, *head, all);
    for (u32 i = threadIdx.x; row.draws && i < COARSE; i += blockDim.x) s.coarse[i] = coarse[i];

    float best = -__int_as_float(0x7f800000);
    u32 at = 0;
    each(all, [&](u32 id, float logit) {
        if (no_number(logit)) numbers = false;
        float score = masked(all, id, logit);
        if (score > best || (score == best && id < at)) best = score, at = id;
    });
    u32 bits = __float_as_uint(best + 0.0f);  // -0 is 0
    u64 key = largest((u64)(bits >> 31 ? ~bits : bits | 0x80000000) << 32 | (u32)~at);
    bits = (u32)(key >> 32);
    best = __uint_as_float(bits >> 31 ? bits ^ 0x80000000 : ~bits);
    at = ~(u32)key;
    bool usable = !__syncthreads_or(!numbers) && best > -__int_as_float(0x7f800000);
    if (usable && row.draws) {
        float temperature = fmaxf(row.temperature, 1e-6f), top = __fdiv_rn(best, temperature);
        if (fabsf(top) < __int_as_float(0x7f800000)) {  // else so cold that nothing but the best weighs anything
            u32 id_bits = 32 - __clz(vocabulary);
            float cut = best - 31 * temperature - (fabsf(best) + 31 * temperature) * 0x1p-21f;  // what rounding can change is less
            at = Draw{all, top, temperature, cut, id_bits}.draw(row, uniform_number(row.seed, row.position));
        }
    }
    restore(row, *head, own);
    if (threadIdx.x == 0) {
        tokens[blockIdx.x] = row.forced && usable ? row.forced - 1 : usable ? at : 0;
        values[blockIdx.x] = usable ? own[at] : __int_as_float(0x7fc00000);
    }
}
