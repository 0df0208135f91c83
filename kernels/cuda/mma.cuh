// Instructions that the heavy kernels are built from: asynchronous copies,
// matrix loads and tensor-core products, all from sm_80 on.
//
// Fragment layout of mma.m16n8k16 (PTX ISA, "Matrix fragments"), with
// r = lane / 4 and q = lane % 4:
//
//   A [16, 16]  a0 (r, 2q..2q+1)  a1 (r+8, 2q..)  a2 (r, 2q+8..)  a3 (r+8, 2q+8..)
//   B [16, 8]   b0 (2q..2q+1, r)  b1 (2q+8.., r)
//   C [16, 8]   c0, c1 (r, 2q..2q+1)  c2, c3 (r+8, 2q..)
#pragma once

#include "common.cuh"

__device__ __forceinline__ uint32_t shared_address(const void *p) {
	return (uint32_t)__cvta_generic_to_shared(p);
}

// copy_async copies 16 bytes to shared memory past the L1 cache; what is not
// valid is not read and becomes zeros.
__device__ __forceinline__ void copy_async(uint32_t to, const void *from, bool valid = true) {
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// copy_async_once is for bytes that nobody reads again: they leave the L2 first.
__device__ __forceinline__ void copy_async_once(uint32_t to, const void *from, bool valid, uint64_t policy) {
	asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0), "l"(policy) : "memory");
}

__device__ __forceinline__ uint64_t evict_first_policy() {
	uint64_t policy;
	asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
	return policy;
}

__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// copy_wait waits until at most Pending of this thread's groups are under way.
template <int Pending> __device__ __forceinline__ void copy_wait() {
	asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// read_shared reads 16 bytes of the CTA's own.
__device__ __forceinline__ float4 read_shared(uint32_t address) {
	float4 v;
	asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address) : "memory");
	return v;
}

// read_shared_number reads one.
__device__ __forceinline__ float read_shared_number(uint32_t address) {
	float v;
	asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address) : "memory");
	return v;
}

// read_shared_now is not put off by the compiler to where its outcome is wanted.
__device__ __forceinline__ float4 read_shared_now(uint32_t address) {
	float4 v;
	asm volatile("ld.volatile.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address) : "memory");
	return v;
}

// write_shared writes a number there, two, or four.
__device__ __forceinline__ void write_shared(uint32_t address, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory"); }
__device__ __forceinline__ void write_shared(uint32_t address, float a, float b) { asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(a), "f"(b) : "memory"); }
__device__ __forceinline__ void write_shared(uint32_t address, float4 v) {
	asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}

// load_matrices loads four 8×8 matrices of 16-bit values; lane l gives the
// address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(row) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&m)[4], uint32_t row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(row) : "memory");
}

// load_matrix_pair loads two 8×8 matrices; lanes 0–15 give the addresses.
__device__ __forceinline__ void load_matrix_pair(uint32_t (&m)[2], uint32_t row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
	             : "=r"(m[0]), "=r"(m[1]) : "r"(row) : "memory");
}

// transpose turns an 8×8 matrix of 16-bit values that lies across the warp.
__device__ __forceinline__ uint32_t transpose(uint32_t m) {
	uint32_t t;
	asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(m));
	return t;
}

// multiply_add is C += A·B, both half.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Weights of keys are exp2(score − maximum + WEIGHT_BITS), in the sum, too: half has 14
// bits of exponent below 1 and 15 above, of which so all serve.
constexpr float WEIGHT_BITS = 14;

__device__ __forceinline__ float exp2_fast(float x) {
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
