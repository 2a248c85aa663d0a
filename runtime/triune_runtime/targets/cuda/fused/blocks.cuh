// Weights in blocks of 32 numbers of a row: codes of four bits (of the head eight) around the middle one, and a scale each.
//
// Lane (g, t)'s 16 bytes of a row are one block of four bits, or half a block of eight. They become float16 as they are
// multiplied: code - middle is exact, times the scale it is rounded once, to 2^-11 of itself, as every float16 weight is. Sums
// are float32. A scale cannot wait until after the sum: one tensor core product adds up four blocks of a row.
//
// In a word of codes 0 to 7, four bits each, 0 and 4 come apart as a pair with one instruction, then 1 and 5, and so on. So
// each eight of the vectors' numbers lie as 0 4 1 5 2 6 3 7, and eights of a block in an order in which lanes that read at
// once read different banks.

// Where in shared memory an eight of a vector lies.
__device__ __forceinline__ int place_of(int eight) { return QUANTIZED ? eight ^ (eight >> 2 & 3) : eight; }

__device__ __forceinline__ uint4 arranged(uint4 v) {
    if (!QUANTIZED) return v;
    return {low_halves(v.x, v.z), high_halves(v.x, v.z), low_halves(v.y, v.w), high_halves(v.y, v.w)};
}

#if HALF
constexpr unsigned THOUSAND = 0x64006400;  // 1024, twice: numbers from there to 2047 differ in the last bits alone

// Weights as pairs, of eight codes of four bits.
__device__ __forceinline__ void open_fours(unsigned codes, unsigned scale, unsigned (&pairs)[4]) {
    constexpr unsigned LESS = 0xe408e408, SIXTEENTH = 0x2c002c00, LESS_SIXTEENTH = 0xd480d480;  // -1032, 1 / 16, -72
    const unsigned high = codes >> 8;
    pairs[0] = add_halves((codes & 0x000f000f) | THOUSAND, LESS);
    pairs[1] = multiply_add_halves((codes & 0x00f000f0) | THOUSAND, SIXTEENTH, LESS_SIXTEENTH);
    pairs[2] = add_halves((high & 0x000f000f) | THOUSAND, LESS);
    pairs[3] = multiply_add_halves((high & 0x00f000f0) | THOUSAND, SIXTEENTH, LESS_SIXTEENTH);
#pragma unroll
    for (unsigned& pair : pairs) pair = multiply_halves(pair, scale);
}

// Of eight codes of eight bits.
__device__ __forceinline__ void open_eights(unsigned first, unsigned second, unsigned scale, unsigned (&pairs)[4]) {
    constexpr unsigned LESS = 0xe480e480;  // -1152
    const unsigned low = low_halves(first, second), high = high_halves(first, second);
    pairs[0] = (low & 0x00ff00ff) | THOUSAND;
    pairs[1] = (low >> 8 & 0x00ff00ff) | THOUSAND;
    pairs[2] = (high & 0x00ff00ff) | THOUSAND;
    pairs[3] = (high >> 8 & 0x00ff00ff) | THOUSAND;
#pragma unroll
    for (unsigned& pair : pairs) pair = multiply_halves(add_halves(pair, LESS), scale);
}

// The next stage, times the numbers of the vectors from `x` [this lane's sequence; null: it has none] on; `left` numbers
// of the row are left.
template <int BITS>
__device__ __forceinline__ void multiply_blocks(Stream& stream, const uint4* x, int left, float (&sums)[4][4]) {
    constexpr int OF_COPY = 128 / BITS, EIGHTS = OF_COPY / 8;  // in 16 bytes
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint4 low[2], high[2];
    stream.take(low[0], low[1], high[0], high[1]);
    sync_warp();
    const number* scales = stream.scales();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int copy = t + 4 * half, block = copy * OF_COPY / SCALED;
        const unsigned low_scale = scales[8 * g + block], high_scale = scales[8 * g + 64 + block];
        const unsigned low_pair = low_scale | low_scale << 16, high_pair = high_scale | high_scale << 16;
        const unsigned low_words[4] = {low[half].x, low[half].y, low[half].z, low[half].w};
        const unsigned high_words[4] = {high[half].x, high[half].y, high[half].z, high[half].w};
        const bool there = x != nullptr && copy * OF_COPY < left;
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            const uint4 eight = there ? x[place_of(copy * EIGHTS + i)] : uint4{0, 0, 0, 0};
            unsigned a[4], b[4];
            if (BITS == 4) {
                open_fours(low_words[i], low_pair, a);
                open_fours(high_words[i], high_pair, b);
            } else {
                open_eights(low_words[2 * i % 4], low_words[(2 * i + 1) % 4], low_pair, a);
                open_eights(high_words[2 * i % 4], high_words[(2 * i + 1) % 4], high_pair, b);
            }
            multiply(sums[2 * i % 4], a[0], b[0], a[1], b[1], eight.x, eight.y);
            multiply(sums[(2 * i + 1) % 4], a[2], b[2], a[3], b[3], eight.z, eight.w);
        }
    }
    sync_warp();  // all have read the scales
    stream.refill();
}
#endif
