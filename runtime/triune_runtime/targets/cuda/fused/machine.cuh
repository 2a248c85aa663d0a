// What the kernels need of the GPU beyond plain C++: tensor cores, copies into shared memory, ordering between blocks.
// A test brings other definitions of these functions, to run the kernels on a CPU.

#ifndef MACHINE
typedef unsigned short number;  // the bits of a bfloat16 or, with HALF, a float16

extern __shared__ __align__(128) char dynamic_shared[];

__device__ __forceinline__ char* shared_memory() { return dynamic_shared; }
__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

__device__ __forceinline__ float to_float(number bits) {
#if HALF
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    return __uint_as_float((unsigned)bits << 16);
#endif
}

__device__ __forceinline__ number to_number(float value) {
    number bits;
#if HALF
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#endif
    return bits;
}

__device__ __forceinline__ float power_of_two(float exponent) { return exp2f(exponent); }
__device__ __forceinline__ float inverse_root(float value) { return rsqrtf(value); }
__device__ __forceinline__ float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
__device__ __forceinline__ float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
__device__ __forceinline__ unsigned word_of(float value) { return __float_as_uint(value); }

// The same, but what follows from it is computed here, not once for all layers, for which there are not enough registers.
__device__ __forceinline__ unsigned anew(unsigned value) {
    asm volatile("" : "+r"(value));
    return value;
}

// sums [16 rows, 8 columns] += a [16, 16] x b [16, 8], each lane with its part of them as mma.m16n8k16 wants it.
__device__ __forceinline__ void multiply(
    float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
#if HALF
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Low (or high) halves of two words, the first one's below.
__device__ __forceinline__ unsigned low_halves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x5410); }
__device__ __forceinline__ unsigned high_halves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x7632); }

// Both halves' products, each rounded.
__device__ __forceinline__ unsigned multiply_halves(unsigned a, unsigned b) {
    unsigned products;
#if HALF
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(products) : "r"(a), "r"(b));
#else
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(products) : "r"(a), "r"(b), "r"(0x80008000u));  // plus -0, which changes nothing
#endif
    return products;
}
// Two float16 each, exact or rounded once: a + b, a * b + c.
#if HALF
__device__ __forceinline__ unsigned add_halves(unsigned a, unsigned b) {
    unsigned sums;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sums) : "r"(a), "r"(b));
    return sums;
}
__device__ __forceinline__ unsigned multiply_add_halves(unsigned a, unsigned b, unsigned c) {
    unsigned sums;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sums) : "r"(a), "r"(b), "r"(c));
    return sums;
}
#endif

// Copies of 16 bytes into shared memory that go on while this thread does other things. A thread waits for its own. The L2
// cache brings the AHEAD bytes around them.
#define TEXT(number) #number
#define TEXT_OF(macro) TEXT(macro)
__device__ __forceinline__ void copy_async(char* target, const char* source) {
    unsigned address = (unsigned)__cvta_generic_to_shared(target);
    asm volatile("cp.async.cg.shared.global.L2::" TEXT_OF(AHEAD) "B [%0], [%1], 16;" ::"r"(address), "l"(source) : "memory");
}
__device__ __forceinline__ void copy_async_word(char* target, const char* source) {  // of 4 bytes
    unsigned address = (unsigned)__cvta_generic_to_shared(target);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(source) : "memory");
}
__device__ __forceinline__ void end_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT>
__device__ __forceinline__ void wait_stages() {  // until all but the last LEFT stages are there
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// What other blocks wrote in this launch is read past the L1 cache, which does not see their writes.
__device__ __forceinline__ uint4 read_fresh(const uint4* at) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
    return v;
}
__device__ __forceinline__ float4 read_fresh(const float4* at) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at) : "memory");
    return v;
}
__device__ __forceinline__ uint2 read_fresh(const uint2* at) {
    uint2 v;
    asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(at) : "memory");
    return v;
}
__device__ __forceinline__ float2 read_fresh(const float2* at) {
    float2 v;
    asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at) : "memory");
    return v;
}
__device__ __forceinline__ number read_fresh(const number* at) {
    number v;
    asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(v) : "l"(at) : "memory");
    return v;
}

// Brings the 128 bytes around `at` into the L2 cache.
__device__ __forceinline__ void prefetch(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// Adds one to a counter: who then reads the sum with `look`, or counts and then calls `order`, sees all that this thread's
// block had written before its last `sync_block`.
__device__ __forceinline__ void order() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
__device__ __forceinline__ unsigned count(unsigned* counter) {
    unsigned before;
    order();
    asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}
__device__ __forceinline__ unsigned look(const unsigned* counter) {
    unsigned v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(counter) : "memory");
    return v;
}
__device__ __forceinline__ void wait_a_little() {}
__device__ __forceinline__ void give_up() { __trap(); }
#endif
