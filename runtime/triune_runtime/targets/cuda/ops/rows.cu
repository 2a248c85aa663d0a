// What stands between a layer's products, each in one pass over its rows. Sums and products are float32, and rounded once, when
// they are written. Every thread reads and writes 16 bytes at a time: rows begin at multiples of that.

constexpr int EACH = 8;  // numbers that lie in 16 bytes

__device__ __forceinline__ void read(const number* at, float (&values)[EACH]) {
    const uint4 words = *(const uint4*)at;
    const unsigned word[] = {words.x, words.y, words.z, words.w};
    for (int i = 0; i < EACH; i++) values[i] = to_float((number)(word[i / 2] >> i % 2 * 16));
}

__device__ __forceinline__ void write(number* at, const float (&values)[EACH]) {
    unsigned word[EACH / 2];
    for (int i = 0; i < EACH / 2; i++) word[i] = to_number(values[2 * i]) | (unsigned)to_number(values[2 * i + 1]) << 16;
    *(uint4*)at = uint4{word[0], word[1], word[2], word[3]};
}

__device__ __forceinline__ float gated(float gate, float up) {
    constexpr float LOG2_E = 1.4426950408889634f;
    return gate / (1.0f + power_of_two(-LOG2_E * gate)) * up;
}

// y = silu(gate) * up, of `count` numbers in rows of `columns`; rows of gate and up begin every `stride` numbers.
extern "C" __global__ void __launch_bounds__(256)
    swiglu(const number* __restrict__ gate, const number* __restrict__ up, number* __restrict__ y, long long count,
           long long columns, long long stride) {
    const unsigned thread = blockIdx.x * 256 + threadIdx.x;
    const long long first = (long long)thread * EACH;
    const bool is_dense = stride == columns;
    if (first + EACH <= count && (is_dense || columns % EACH == 0)) {
        const unsigned vectors = columns / EACH;  // of a row
        const long long from = is_dense ? first : thread / vectors * stride + thread % vectors * EACH;
        float g[EACH], u[EACH];
        read(gate + from, g);
        read(up + from, u);
        for (int i = 0; i < EACH; i++) g[i] = gated(g[i], u[i]);
        write(y + first, g);
    } else {
        for (long long i = first; i < count && i < first + EACH; i++) {
            const long long from = i / columns * stride + i % columns;
            y[i] = to_number(gated(to_float(gate[from]), to_float(up[from])));
        }
    }
}

// Bias, norms of queries' and keys' heads, rotation: packed rows [tokens, (heads + 2 kv_heads) * dim] -> query [tokens,
// heads * dim], key and value [tokens, kv_heads * dim]. A thread takes 8 numbers of the first half of a head and the 8 of the
// second half that are rotated with them.
//
// bias [(heads + 2 kv_heads) * dim], query_norm [dim], key_norm [dim]: null where there is none; with norms dim / 16 is a power
// of two. cosines, sines [positions, dim / 2]. ends [sequences + 1]: where the sequences' tokens begin; past [sequences]:
// the position of each one's first token.
extern "C" __global__ void __launch_bounds__(256)
    rotate(const number* __restrict__ packed, const number* __restrict__ bias, const number* __restrict__ query_norm,
           const number* __restrict__ key_norm, const number* __restrict__ cosines, const number* __restrict__ sines,
           const int* __restrict__ ends, const int* __restrict__ past, number* __restrict__ query, number* __restrict__ key,
           number* __restrict__ value, int tokens, int sequences, int heads, int kv_heads, int dim, float epsilon) {
    const unsigned lanes = dim / (2 * EACH), all = heads + 2 * kv_heads, total = tokens * all * lanes;
    unsigned thread = blockIdx.x * 256 + threadIdx.x;
    const bool is_there = thread < total;
    if (!is_there) thread = total - 1;  // its warp adds up together
    const int place = thread % lanes * EACH, head = thread / lanes % all, half = dim / 2;
    const long long token = thread / lanes / all;
    const bool is_query = head < heads, is_value = head >= heads + kv_heads;
    const number* from = packed + (token * all + head) * dim + place;
    float a[EACH], b[EACH], c[EACH], s[EACH];
    read(from, a);
    read(from + half, b);
    if (bias) {
        read(bias + head * dim + place, c);
        read(bias + head * dim + place + half, s);
        for (int i = 0; i < EACH; i++) a[i] += c[i], b[i] += s[i];
    }
    if (query_norm) {
        float sum = 0;
        for (int i = 0; i < EACH; i++) sum += a[i] * a[i] + b[i] * b[i];
        for (int mask = lanes / 2; mask; mask /= 2) sum += shuffle_xor(sum, mask);
        if (!is_value) {
            const number* norm = (is_query ? query_norm : key_norm) + place;
            const float scale = inverse_root(sum / dim + epsilon);
            read(norm, c);
            read(norm + half, s);
            for (int i = 0; i < EACH; i++) a[i] *= scale * c[i], b[i] *= scale * s[i];
        }
    }
    if (!is_there) return;
    if (!is_value) {
        int sequence = 0;
        for (int end = sequences; sequence + 1 < end;) {  // the last one that begins here or before: it has the token
            const int middle = (sequence + end) / 2;
            if (ends[middle] <= token) sequence = middle;
            else end = middle;
        }
        const long long angles = (long long)(past[sequence] + token - ends[sequence]) * half + place;
        read(cosines + angles, c);
        read(sines + angles, s);
        for (int i = 0; i < EACH; i++) {
            const float turned = a[i] * c[i] - b[i] * s[i];
            b[i] = b[i] * c[i] + a[i] * s[i];
            a[i] = turned;
        }
    }
    number* to = is_query  ? query + (token * heads + head) * dim
                 : is_value ? value + (token * kv_heads + head - heads - kv_heads) * dim
                            : key + (token * kv_heads + head - heads) * dim;
    write(to + place, a);
    write(to + place + half, b);
}
