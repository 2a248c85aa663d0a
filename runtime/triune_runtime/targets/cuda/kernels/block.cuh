// What a row asks for, and what a block of threads does together on its logits: visits tokens, weighs them, adds up.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 EVERYONE = 0xffffffff, BINS = 1408, LISTED = 2048, COARSE = 2048, BATCH = 4;
constexpr u32 FAR_BITS = 0x41f00000;            // 30.0f: nothing that far below the best weighs anything
constexpr u32 OCTAVES_A_NAT = 387270501;        // log2(e) x 2^28
constexpr u32 BIN_STEPS = 17;                   // a first bin has the ranks of 2^17 steps, of which an octave has 2^22
constexpr u64 BEST_WEIGHT = 1ull << 42;

struct Site { int token; float value; };

struct Row {  // as ROW in choosing.py; all 0: the best token of the logits as they are
    double top_p, min_p;
    u64 seed, position;
    long long forced;                           // token + 1; 0: none
    float temperature, repetition, presence, frequency;
    int top_k, draws, mask, pad;                // mask: number of its mask + 1; 0: none
    int biases, biases_end, seen, seen_end, bans, bans_end;  // of its sites
};

struct Head { Site* sites; float* saved; const u32* masks; u64 pad; };

struct Shared {
    u64 list[LISTED];                           // ranks
    u64 parts[32];
    u32 coarse[COARSE];
    u32 count[BINS], low[BINS], high[BINS];     // of each bin the tokens and the weight; once summed, with those of all before
    u64 place[3];                               // what was found: a rank, and the tokens and the weight up to it
    u32 found, taken;
};

__shared__ Shared s;  // of the block; here, so that functions that are not inlined know that it is shared memory

struct Tokens { float* logits; u32 count; const u32* mask; };

__device__ bool allowed(const Tokens& tokens, u32 id) { return !tokens.mask || tokens.mask[id / 32] >> (id % 32) & 1; }

// Of the token with this logit: minus infinity where the mask has no bit.
__device__ float masked(const Tokens& tokens, u32 id, float logit) {
    return allowed(tokens, id) ? logit : -__int_as_float(0x7f800000);
}

// visit(id, logit) of every token once; many loads are under way at a time.
template <class Visit> __device__ void each(const Tokens& tokens, Visit visit) {
    u32 threads = blockDim.x, head = (16 - (u32)((u64)tokens.logits & 15)) % 16 / 4;
    if (head > tokens.count) head = tokens.count;
    u32 quads = (tokens.count - head) / 4, odd = tokens.count - 4 * quads;
    const float4* from = (const float4*)(tokens.logits + head);
    for (u32 first = threadIdx.x; first < quads; first += BATCH * threads) {
        float4 batch[BATCH];
#pragma unroll
        for (u32 b = 0; b < BATCH; ++b)
            if (first + b * threads < quads) batch[b] = from[first + b * threads];
#pragma unroll
        for (u32 b = 0; b < BATCH; ++b) {
            u32 quad = first + b * threads, id = head + 4 * quad;
            if (quad < quads) {
                visit(id, batch[b].x);
                visit(id + 1, batch[b].y);
                visit(id + 2, batch[b].z);
                visit(id + 3, batch[b].w);
            }
        }
    }
    for (u32 i = threadIdx.x; i < odd; i += threads) {
        u32 id = i < head ? i : i + 4 * quads;
        visit(id, tokens.logits[id]);
    }
}

// The sum of `mine` over the threads before this one; `total`: over all.
__device__ u64 sum_before(u64 mine, u64& total) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 sum = mine;
    for (u32 step = 1; step < 32; step *= 2) {
        u64 other = __shfl_up_sync(EVERYONE, sum, step);
        if (lane >= step) sum += other;
    }
    __syncthreads();
    if (lane == 31) s.parts[warp] = sum;
    __syncthreads();
    u64 before = 0;
    total = 0;
    for (u32 w = 0; w < blockDim.x / 32; ++w) {
        if (w == warp) before = total;
        total += s.parts[w];
    }
    return before + sum - mine;
}

__device__ u64 largest(u64 mine) {
    for (u32 step = 16; step; step /= 2) {
        u64 other = __shfl_xor_sync(EVERYONE, mine, step);
        if (other > mine) mine = other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.parts[threadIdx.x / 32] = mine;
    __syncthreads();
    for (u32 w = 0; w < blockDim.x / 32; ++w)
        if (s.parts[w] > mine) mine = s.parts[w];
    return mine;
}

// Octaves x 2^22 of a scaled score with these bits below the best, less than 30.
__device__ u32 steps_of(u32 bits) {
    u32 mantissa = (bits & 0x7fffff) | 0x800000, shift = 156 - (bits >> 23);  // of the smallest floats it does not matter
    return shift > 63 ? 0 : (u32)((u64)mantissa * OCTAVES_A_NAT >> shift);
}

__device__ u64 weight_of(u32 bits) {
    if (bits >= FAR_BITS) return 0;
    u32 steps = steps_of(bits), fine = (1u << 26) - ((steps & 2047) * 45426 >> 12);
    return (u64)s.coarse[steps >> 11 & 2047] * fine >> (10 + (steps >> 22));
}
