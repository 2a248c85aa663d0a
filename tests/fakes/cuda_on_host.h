// Runs CUDA kernels on a CPU, for tests: every thread of the GPU is a fiber, and all of a launch take turns on one thread.
//
// Harder than a GPU where that shows mistakes: copies into shared memory are made only when they are waited for, shared memory
// and registers begin with rubbish, and a launch in which nobody gets on any more fails.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define MACHINE  // what machine.cuh has for the GPU is below
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
using std::max;
using std::min;

struct uint4 {
    unsigned x, y, z, w;
};
struct uint2 {
    unsigned x, y;
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx;
typedef unsigned short number;

extern "C" {
unsigned first_block;  // which one runs first
}
namespace host {
constexpr int BLOCK_THREADS = 256;
struct Meeting {  // of `size` fibers
    int size, arrived = 0;
    long turn = 0;
};
struct Warp {
    Meeting meeting{32};
    float floats[32];
    unsigned a[32][4], b[32][2];
};
struct Copy {
    char* target;
    const char* source;
    int size;
};
struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    unsigned thread, block;
    bool done = false;
    std::vector<std::vector<Copy>> stages{1};
};
struct Block {
    Meeting meeting{BLOCK_THREADS};
    std::vector<Warp> warps{BLOCK_THREADS / 32};
    std::vector<char> shared;
    char* aligned = nullptr;
};
static std::vector<Block> blocks;
static std::vector<std::unique_ptr<Fiber>> fibers;
static Fiber* current;
static ucontext_t scheduler;
static std::function<void()> kernel;
static bool failed;
static long progress;

static void yield() { swapcontext(&current->context, &scheduler); }
static void wait(Meeting& meeting) {
    const long turn = meeting.turn;
    progress++;
    if (++meeting.arrived == meeting.size) meeting.arrived = 0, meeting.turn++;
    while (meeting.turn == turn) yield();
}
static Warp& warp() { return blocks[blockIdx.x].warps[threadIdx.x / 32]; }
static void enter() {
    kernel();
    current->done = true, progress++;
    yield();
}

// Runs `body` as `count` blocks; false if a thread gave up or none got on.
static bool launch(int count, size_t shared_bytes, std::function<void()> body) {
    kernel = body, failed = false;
    blocks.assign(count, Block());
    fibers.clear();
    for (int i = 0; i < count * BLOCK_THREADS; i++) {
        fibers.push_back(std::make_unique<Fiber>());
        Fiber& fiber = *fibers.back();
        fiber.thread = i % BLOCK_THREADS, fiber.block = i / BLOCK_THREADS;
        constexpr size_t STACK = 1 << 16;
        fiber.stack = std::make_unique<char[]>(STACK);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = STACK;
        makecontext(&fiber.context, enter, 0);
    }
    for (Block& block : blocks) {
        block.shared.assign(shared_bytes + 128, (char)0xff);  // numbers that are none
        block.aligned = (char*)(((uintptr_t)block.shared.data() + 127) / 128 * 128);
    }
    for (size_t left = fibers.size(); left && !failed;) {
        const long before = progress;
        left = 0;
        for (size_t i = 0; i < fibers.size(); i++) {
            auto& fiber = fibers[(i + first_block * BLOCK_THREADS) % fibers.size()];
            if (fiber->done || failed) continue;
            left++;
            current = fiber.get(), threadIdx.x = fiber->thread, blockIdx.x = fiber->block;
            swapcontext(&scheduler, &fiber->context);
        }
        if (left && progress == before) failed = true;
    }
    for (Block& block : blocks)  // nobody wrote beyond the end
        for (size_t i = shared_bytes; block.aligned + i < block.shared.data() + block.shared.size(); i++)
            if (block.aligned[i] != (char)0xff) failed = true;
    return !failed;
}

// Calls a kernel with arguments at these addresses.
template <class... Types, size_t... Places>
static void call(void (*kernel)(Types...), void** arguments, std::index_sequence<Places...>) {
    kernel(*(Types*)arguments[Places]...);
}
template <class... Types>
static bool launch_kernel(void (*kernel)(Types...), void** arguments, int count, size_t shared_bytes) {
    return launch(count, shared_bytes, [=] { call(kernel, arguments, std::index_sequence_for<Types...>()); });
}
}  // namespace host

inline char* shared_memory() { return host::blocks[blockIdx.x].aligned; }
inline void sync_block() { host::wait(host::blocks[blockIdx.x].meeting); }
inline void sync_warp() { host::wait(host::warp().meeting); }
inline float shuffle_xor(float value, int mask) {
    host::Warp& warp = host::warp();
    warp.floats[threadIdx.x % 32] = value;
    host::wait(warp.meeting);
    const float other = warp.floats[threadIdx.x % 32 ^ mask];
    host::wait(warp.meeting);
    return other;
}

inline float shuffle(float value, int lane) {
    host::Warp& warp = host::warp();
    warp.floats[threadIdx.x % 32] = value;
    host::wait(warp.meeting);
    const float other = warp.floats[lane];
    host::wait(warp.meeting);
    return other;
}
inline unsigned anew(unsigned value) { return value; }
inline unsigned word_of(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

inline float to_float(number bits) {
#if HALF
    _Float16 value;
    memcpy(&value, &bits, 2);
    return value;
#else
    const unsigned word = (unsigned)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
#endif
}
inline number to_number(float value) {
    number bits;
#if HALF
    const _Float16 half = value;
    memcpy(&bits, &half, 2);
#else
    unsigned word;
    memcpy(&word, &value, 4);
    if (value != value) return 0x7fff;
    bits = (word + 0x7fff + (word >> 16 & 1)) >> 16;
#endif
    return bits;
}
inline float power_of_two(float exponent) { return std::exp2(exponent); }
inline float inverse_root(float value) { return 1 / std::sqrt(value); }

// As the PTX manual lays out mma.m16n8k16.
inline void multiply(float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    host::Warp& warp = host::warp();
    const int lane = threadIdx.x % 32;
    const unsigned a[4] = {a0, a1, a2, a3};
    memcpy(warp.a[lane], a, 16);
    warp.b[lane][0] = b0, warp.b[lane][1] = b1;
    host::wait(warp.meeting);
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            const unsigned left = warp.a[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            const unsigned right = warp.b[column * 4 + k % 8 / 2][k / 8];
            sums[i] += to_float(left >> k % 2 * 16) * to_float(right >> k % 2 * 16);
        }
    }
    host::wait(warp.meeting);
}
template <class Compute>
inline unsigned each_half(unsigned a, unsigned b, unsigned c, Compute compute) {
    unsigned found = 0;
    for (int at = 0; at < 32; at += 16)
        found |= (unsigned)to_number(compute(to_float(a >> at), to_float(b >> at), to_float(c >> at))) << at;
    return found;
}
inline unsigned add_halves(unsigned a, unsigned b) {
    return each_half(a, b, 0, [](float x, float y, float) { return x + y; });
}
inline unsigned multiply_halves(unsigned a, unsigned b) {
    return each_half(a, b, 0, [](float x, float y, float) { return x * y; });
}
inline unsigned multiply_add_halves(unsigned a, unsigned b, unsigned c) {
    return each_half(a, b, c, [](float x, float y, float z) { return x * y + z; });
}
inline unsigned low_halves(unsigned a, unsigned b) { return (a & 0xffff) | b << 16; }
inline unsigned high_halves(unsigned a, unsigned b) { return a >> 16 | (b & 0xffff0000u); }

namespace host {
inline void copy(char* target, const char* source, int size) {
    if (((uintptr_t)target | (uintptr_t)source) % size) failed = true;
    memset(target, 0xff, size);
    current->stages.back().push_back({target, source, size});
}
}  // namespace host
inline void copy_async(char* target, const char* source) { host::copy(target, source, 16); }
inline void copy_async_word(char* target, const char* source) { host::copy(target, source, 4); }
inline void end_stage() { host::current->stages.emplace_back(); }
template <int LEFT>
inline void wait_stages() {
    auto& stages = host::current->stages;
    while ((int)stages.size() - 1 > LEFT) {
        for (const host::Copy& copy : stages.front()) memcpy(copy.target, copy.source, copy.size);
        stages.erase(stages.begin());
    }
}
template <class T>
inline T read_fresh(const T* at) {
    if ((uintptr_t)at % sizeof(T)) host::failed = true;
    return *at;
}
inline void prefetch(const void* at) {
    volatile char byte = *(const char*)at;  // an address that is none shows
    (void)byte;
}
inline unsigned count(unsigned* counter) {
    host::progress++;
    return (*counter)++;
}
inline unsigned look(const unsigned* counter) { return *counter; }
inline void order() {}
inline void wait_a_little() { host::yield(); }
inline void give_up() { host::failed = true, host::yield(); }
