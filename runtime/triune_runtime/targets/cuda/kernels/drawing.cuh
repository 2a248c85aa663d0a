// Draws one token of a row.
//
// A token's rank is one number: how much its scaled score is below the best, as bits, and behind it the id. Nothing is sorted but
// a short list: bins of ranks, with their tokens' number and weight, say in which bin a sum passes what is looked for; then the
// tokens of that bin, and of all before it if they are few, are listed and sorted. A bin with too many tokens is divided again,
// in the end equal scores by their ids.

// Draws from one row's scores. All members are the same in every thread of the block.
struct Draw {
    Tokens tokens;
    float top, temperature, cut;                // scores less than `cut` weigh nothing
    u32 id_bits;
    bool first_bins = false;                    // whether the bins are those of `fill_first`, summed
    u64 listed = 0, counts[2] = {0, 0}, weights[2] = {0, 0};  // the list, and what is before it and up to its end

    template <class Visit> __device__ void ranked(Visit visit) {
        const Draw own = *this;  // in registers
        each(own.tokens, [&](u32 id, float logit) {
            float score = masked(own.tokens, id, logit);
            if (score < own.cut) return;
            u32 bits = __float_as_uint(__fsub_rn(own.top, __fdiv_rn(score, own.temperature)));
            u64 weight = weight_of(bits);
            if (weight) visit(bits, (u64)bits << own.id_bits | id, weight);
        });
    }

    __device__ void clear() {
        __syncthreads();
        for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) s.count[bin] = s.low[bin] = s.high[bin] = 0;
        __syncthreads();
    }

    __device__ void add(u32 bin, u64 weight) {
        u32 low = (u32)weight, high = (u32)(weight >> 32);
        atomicAdd(&s.count[bin], 1u);
        if (atomicAdd(&s.low[bin], low) + low < low) ++high;  // 32 bits are full
        if (high) atomicAdd(&s.high[bin], high);
    }

    __device__ u64 of_bin(u32 bin, bool by_count) { return by_count ? s.count[bin] : (u64)s.high[bin] << 32 | s.low[bin]; }

    // Make of each bin's sums those of it and all before.
    __device__ __noinline__ void sum_up() {
        __syncthreads();
        u32 share = (BINS + blockDim.x - 1) / blockDim.x, first = min(BINS, threadIdx.x * share), end = min(BINS, first + share);
        u64 count = 0, weight = 0, total;
        for (u32 bin = first; bin < end; ++bin) count += s.count[bin], weight += of_bin(bin, false);
        count = sum_before(count, total);
        weight = sum_before(weight, total);
        for (u32 bin = first; bin < end; ++bin) {
            count += s.count[bin], weight += of_bin(bin, false);
            s.count[bin] = (u32)count, s.low[bin] = (u32)weight, s.high[bin] = (u32)(weight >> 32);
        }
        __syncthreads();
    }

    __device__ __noinline__ void fill_first() {
        clear();
        ranked([&](u32 bits, u64 rank, u64 weight) { add(steps_of(bits) >> BIN_STEPS, weight); });
        sum_up();
        first_bins = true;
    }

    // The bin in which the sum passes `target`.
    __device__ u32 passing(u64 target, bool by_count) {
        for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x)
            if (of_bin(bin, by_count) > target && (bin == 0 || of_bin(bin - 1, by_count) <= target)) s.found = bin;
        __syncthreads();
        u32 bin = s.found;
        __syncthreads();
        return bin;
    }

    // The lowest rank of a first bin.
    __device__ u64 begin_of(u32 bin) {
        u32 bits = 0;
        for (u32 bit = 1u << 30; bit; bit /= 2)
            if ((bits | bit) <= FAR_BITS && steps_of((bits | bit) - 1) >> BIN_STEPS < bin) bits |= bit;
        return (u64)bits << id_bits;
    }

    // List the tokens of which one makes the sum pass `target`: of a first bin and of all before it, or a part of that bin.
    __device__ __noinline__ void list(u64 target, bool by_count) {
        if (!first_bins) fill_first();
        u32 bin = passing(target, by_count);
        u64 begin = 0, end = begin_of(bin + 1);
        counts[0] = weights[0] = 0;
        counts[1] = of_bin(bin, true), weights[1] = of_bin(bin, false);
        if (counts[1] > LISTED && bin) {
            begin = begin_of(bin);
            counts[0] = of_bin(bin - 1, true), weights[0] = of_bin(bin - 1, false);
        }
        while (counts[1] - counts[0] > LISTED) {
            u32 shift = 0;
            while ((end - 1 - begin) >> shift >= BINS) ++shift;
            clear();
            first_bins = false;
            ranked([&](u32 bits, u64 rank, u64 weight) {
                if (rank >= begin && rank < end) add((u32)((rank - begin) >> shift), weight);
            });
            sum_up();
            bin = passing(target - (by_count ? counts[0] : weights[0]), by_count);
            u64 limit = begin + ((u64)(bin + 1) << shift);
            counts[1] = counts[0] + of_bin(bin, true), weights[1] = weights[0] + of_bin(bin, false);
            if (bin) {
                begin += (u64)bin << shift;
                counts[0] += of_bin(bin - 1, true), weights[0] += of_bin(bin - 1, false);
            }
            if (limit < end) end = limit;
        }
        listed = counts[1] - counts[0];
        if (threadIdx.x == 0) s.taken = 0;
        __syncthreads();
        ranked([&](u32 bits, u64 rank, u64 weight) {
            if (rank >= begin && rank < end) s.list[atomicAdd(&s.taken, 1u)] = rank;
        });
        sort();
    }

    __device__ void sort() {  // bitonic
        u32 size = 2;
        while (size < listed) size *= 2;
        for (u32 i = (u32)listed + threadIdx.x; i < size; i += blockDim.x) s.list[i] = ~0ull;
        __syncthreads();
        for (u32 part = 2; part <= size; part *= 2)
            for (u32 away = part / 2; away; away /= 2) {
                for (u32 i = threadIdx.x; i < size / 2; i += blockDim.x) {
                    u32 at = 2 * i - (i & (away - 1)), other = at + away;
                    u64 a = s.list[at], b = s.list[other];
                    if ((a > b) == !(at & part)) s.list[at] = b, s.list[other] = a;
                }
                __syncthreads();
            }
    }

    // The first token in the ranking with which the sum, of tokens or of weights, is more than `target`: its id; `up_to`: the
    // sum of weights.
    __device__ __noinline__ u32 find(u64 target, bool by_count, u64& up_to) {
        u64* sums = by_count ? counts : weights;
        if (target < sums[0] || target >= sums[1]) list(target, by_count);
        u32 share = ((u32)listed + blockDim.x - 1) / blockDim.x;
        u32 first = min((u32)listed, threadIdx.x * share), end = min((u32)listed, first + share);
        u64 weight = 0, total;
        for (u32 i = first; i < end; ++i) weight += weight_of((u32)(s.list[i] >> id_bits));
        weight = weights[0] + sum_before(weight, total);
        for (u32 i = first; i < end; ++i) {
            u64 after = weight + weight_of((u32)(s.list[i] >> id_bits));
            if (by_count ? counts[0] + i == target : weight <= target && target < after) s.place[0] = s.list[i], s.place[1] = after;
            weight = after;
        }
        __syncthreads();
        u64 rank = s.place[0];
        up_to = s.place[1];
        __syncthreads();
        return (u32)(rank & ((1ull << id_bits) - 1));
    }

    // The weight of all tokens that weigh at least `least`.
    __device__ __noinline__ u64 at_least(u64 least) {
        u64 mine = 0, total;
        ranked([&](u32 bits, u64 rank, u64 weight) { if (weight >= least) mine += weight; });
        sum_before(mine, total);
        return total;
    }

    __device__ u32 draw(const Row& row, double uniform) {
        fill_first();
        u64 kept = of_bin(BINS - 1, false), up_to;
        if (row.top_k > 0 && (u64)row.top_k < of_bin(BINS - 1, true)) {
            find((u64)row.top_k - 1, true, up_to);
            kept = up_to;
        }
        if (row.top_p < 1) {
            u64 target = (u64)ceil(__dmul_rn(row.top_p, __ull2double_rn(kept)));
            find(target < 1 ? 0 : min(target, kept) - 1, false, up_to);
            kept = up_to;
        }
        if (row.min_p > 0) kept = min(kept, at_least((u64)ceil(__dmul_rn(row.min_p, (double)BEST_WEIGHT))));
        u64 target = (u64)__dmul_rn(uniform, __ull2double_rn(kept));
        return find(min(target, kept - 1), false, up_to);
    }
};
