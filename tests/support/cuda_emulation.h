// CUDA C++ on the host: the threads of a block are fibers of one thread, which run until they meet at a barrier or a shuffle.
//
// In which order they run between two barriers is shuffled, and often one warp runs on while the others stand still, so that what
// depends on it differs from seed to seed. Barriers that not all threads come to end the process.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

using std::max;
using std::min;

#define __device__
#define __global__
#define __noinline__
#define __shared__ static
#define __launch_bounds__(...)

struct Dim { unsigned x, y, z; };
struct float4 { float x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
static Dim threadIdx, blockIdx, blockDim;

struct Barrier {
    unsigned wanted = 0, arrived = 0, generation = 0;
};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun = false, done = false;
    std::vector<char> stack = std::vector<char>(128 << 10);
};

static std::vector<Fiber> fibers;
static std::vector<Barrier> warps;
static std::vector<unsigned long long> slots;
static Barrier block;
static jmp_buf scheduler;
static unsigned current, events;
static unsigned long long chaos = 1;
static std::function<void()> body;

static void pause_fiber() {
    if (!_setjmp(fibers[current].at)) _longjmp(scheduler, 1);
    threadIdx.x = current;
}

static void meet(Barrier& barrier) {
    unsigned generation = barrier.generation;
    if (++barrier.arrived == barrier.wanted) {
        barrier.arrived = 0;
        ++barrier.generation;
        ++events;
    }
    while (barrier.generation == generation) pause_fiber();
}

static void enter_fiber() {
    body();
    fibers[current].done = true;
    ++events;
    _longjmp(scheduler, 1);
}

// Run the body in every thread of one block.
static void run_block(unsigned index, unsigned threads) {
    blockIdx = {index, 0, 0};
    blockDim = {threads, 1, 1};
    if (fibers.size() != threads) fibers = std::vector<Fiber>(threads);
    warps.assign(threads / 32, Barrier{32});
    slots.assign(threads, 0);
    block = Barrier{threads};
    std::vector<unsigned> order(threads);
    for (unsigned i = 0; i < threads; ++i) {
        order[i] = i;
        fibers[i].begun = fibers[i].done = false;
    }
    static unsigned left, i;
    static bool stuck;
    static unsigned alone;  // the only warp that runs
    stuck = false;
    static std::vector<unsigned>* turns;
    turns = &order;
    for (left = threads; left;) {
        for (i = threads - 1; i; --i) {
            chaos = chaos * 6364136223846793005ull + 1442695040888963407ull;
            std::swap((*turns)[i], (*turns)[(chaos >> 33) % (i + 1)]);
        }
        unsigned before = events;
        if (stuck) alone = threads;  // all run
        else if ((chaos >> 60) == 0) alone = (chaos >> 40) % (2 * threads / 32);  // of twice as many as there are
        for (i = 0; i < turns->size(); ++i) {
            current = (*turns)[i];
            Fiber& fiber = fibers[current];
            if (fiber.done || (alone < threads / 32 && current / 32 != alone)) continue;
            threadIdx.x = current;
            if (!_setjmp(scheduler)) {
                if (fiber.begun) _longjmp(fiber.at, 1);
                fiber.begun = true;
                getcontext(&fiber.start);
                fiber.start.uc_stack.ss_sp = fiber.stack.data();
                fiber.start.uc_stack.ss_size = fiber.stack.size();
                fiber.start.uc_link = nullptr;
                makecontext(&fiber.start, enter_fiber, 0);
                setcontext(&fiber.start);
            }
            if (fibers[current].done) --left;
        }
        bool was_stuck = stuck;
        stuck = events == before;
        if (stuck && was_stuck) {
            std::fprintf(stderr, "threads of a block wait for each other for ever\n");
            std::abort();
        }
    }
}

static void __syncthreads() { meet(block); }

static int __syncthreads_or(int mine) {
    static int any;
    __syncthreads();
    any = 0;
    __syncthreads();
    any |= mine;
    __syncthreads();
    return any != 0;
}

static unsigned long long exchange(unsigned long long mine, unsigned lane) {
    unsigned first = threadIdx.x / 32 * 32;
    slots[threadIdx.x] = mine;
    meet(warps[first / 32]);
    unsigned long long theirs = slots[first + lane];
    meet(warps[first / 32]);
    return theirs;
}

static unsigned long long __shfl_up_sync(unsigned, unsigned long long mine, unsigned step) {
    unsigned lane = threadIdx.x % 32;
    return exchange(mine, lane >= step ? lane - step : lane);
}

static unsigned long long __shfl_xor_sync(unsigned, unsigned long long mine, unsigned mask) {
    return exchange(mine, threadIdx.x % 32 ^ mask);
}

static unsigned atomicAdd(unsigned* place, unsigned more) { return (*place += more) - more; }

template <class To, class From> static To bits_as(From from) {
    To to;
    static_assert(sizeof to == sizeof from, "the same bits");
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// Compiled with -ffp-contract=off: every operation is rounded by itself.
static float __int_as_float(int bits) { return bits_as<float>(bits); }
static float __uint_as_float(unsigned bits) { return bits_as<float>(bits); }
static unsigned __float_as_uint(float number) { return bits_as<unsigned>(number); }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static double __dmul_rn(double a, double b) { return a * b; }
static double __ull2double_rn(unsigned long long number) { return (double)number; }
static int __clz(int number) { return number ? __builtin_clz((unsigned)number) : 32; }
