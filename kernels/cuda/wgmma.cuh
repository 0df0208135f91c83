// Instructions of sm_90a: the bulk tensor copy, its barriers, and products of a
// warpgroup (128 threads) straight from shared memory.
//
// Tiles in shared memory: rows of 64 half (128 bytes), eight rows to a group of
// 1 KiB within which 16-byte chunks are permuted by the row (SWIZZLE_128B), groups
// one after the other, aligned to 1 KiB.
//
// Accumulator of wgmma.m64nN: thread t of the warpgroup, with warp w = t / 32,
// r = t % 32 / 4 and q = t % 4, holds c[4j + 2h + i] = (row 16w + r + 8h, column
// 8j + 2q + i).
#pragma once

#include "mma.cuh"

// TensorMap is a CUtensorMap: made on the host, passed by value.
struct alignas(64) TensorMap {
	char bytes[128];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ void barrier_init(uint32_t barrier, int count) {
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// barriers_ready makes initialised barriers visible to the copy engine and to
// the other CTAs of the cluster.
__device__ __forceinline__ void barriers_ready() {
	asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// barrier_copies keeps the barrier's phase from ending before this thread's copy_async so far have.
__device__ __forceinline__ void barrier_copies(uint32_t barrier) {
	asm volatile("cp.async.mbarrier.arrive.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// barrier_wait blocks until the barrier's phase of the given parity is complete.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
	asm volatile("{\n.reg .pred done;\n"
	             "again:\n"
	             "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
	             "@!done bra again;\n}\n" ::"r"(barrier), "r"(parity) : "memory");
}

// copy_panels starts the copy of a box of a tensor of panels of 64 columns, its corner at
// (panel, row); copy_panels_once, too, for bytes that nobody reads again.
__device__ __forceinline__ void copy_panels(uint32_t to, const TensorMap &map, int panel, int row, uint32_t barrier) {
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
	             ::"r"(to), "l"(&map), "r"(0), "r"(row), "r"(panel), "r"(barrier) : "memory");
}
__device__ __forceinline__ void copy_panels_once(uint32_t to, const TensorMap &map, int panel, int row, uint32_t barrier, uint64_t policy) {
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;"
	             ::"r"(to), "l"(&map), "r"(0), "r"(row), "r"(panel), "r"(barrier), "l"(policy) : "memory");
}

// copy_panels_to does so to the same place of several CTAs of the cluster, those of the bits of
// `ctas`, and counts the bytes to the barrier at the same place of each.
__device__ __forceinline__ void copy_panels_to(uint16_t ctas, uint32_t to, const TensorMap &map, int panel, int row, uint32_t barrier) {
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;"
	             ::"r"(to), "l"(&map), "r"(0), "r"(row), "r"(panel), "r"(barrier), "h"(ctas) : "memory");
}

__device__ __forceinline__ void prefetch_map(const TensorMap &map) {
	asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// copy_groups starts the copy of a box of a tensor of groups of eight rows, each of them
// panels of 64 columns, its corner at the group.
__device__ __forceinline__ void copy_groups(uint32_t to, const TensorMap &map, int group, uint32_t barrier) {
	asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %2, %2, %3}], [%4];"
	             ::"r"(to), "l"(&map), "r"(0), "r"(group), "r"(barrier) : "memory");
}

// operand describes a tile to wgmma, its groups of eight rows `group` bytes apart.
__device__ __forceinline__ uint64_t operand(uint32_t tile, int group = 1024) {
	return (tile & 0x3FFFF) >> 4 | 1ull << 16 | (uint64_t)(group >> 4) << 32 | 1ull << 62;
}

// operand_rows describes a tile of 64-column panels, `panel` bytes apart, whose rows
// are the inner dimension of the product.
__device__ __forceinline__ uint64_t operand_rows(uint32_t tile, int panel, int group = 1024) {
	return (tile & 0x3FFFF) >> 4 | (uint64_t)(panel >> 4) << 16 | (uint64_t)(group >> 4) << 32 | 1ull << 62;
}

// further is an operand some bytes on; its other half stays a constant.
__device__ __forceinline__ uint64_t further(uint64_t operand, int bytes) {
	return (operand & 0xFFFFFFFF00000000) | (uint32_t)((uint32_t)operand + bytes / 16);
}

// uniform is x, which is the same in a warp, where the compiler sees it: then operands stay in
// uniform registers, and products follow each other at once.
__device__ __forceinline__ uint32_t uniform(uint32_t x) { return __shfl_sync(~0u, x, 0); }

// pinned, for whole warps, is the thread's x, by a way that the compiler cannot go again: it would rather make x anew, behind a wait, than keep it.
__device__ __forceinline__ uint32_t pinned(uint32_t x) { return __shfl_sync(~0u, x, threadIdx.x % 32); }

// proxy_fence makes this thread's shared memory writes visible to wgmma.
__device__ __forceinline__ void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// cluster_rank and cluster_size place the CTA in its cluster, cluster_id that in the grid.
__device__ __forceinline__ int cluster_rank() {
	int r;
	asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
	return r;
}
__device__ __forceinline__ int cluster_id() {
	int i;
	asm("mov.u32 %0, %%clusterid.x;" : "=r"(i));
	return i;
}
__device__ __forceinline__ int cluster_size() {
	int n;
	asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
	return n;
}

// Over divides by the size of the cluster, or another number up to eight, what is at most 8,192: other divisions
// are forty instructions each (TestOver).
struct Over {
	int size, inverse;

	__device__ __forceinline__ Over() : Over(cluster_size()) {}
	__device__ __forceinline__ explicit Over(int n) : size(n) {
		float x;
		asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"((float)size)); // near enough for these
		inverse = (int)(65536 * x) + 1;
	}
	__device__ __forceinline__ int operator()(int x) const { return x * inverse >> 16; }
	__device__ __forceinline__ int up(int x) const { return (*this)(x + size - 1); }
};

// cluster_sync is a barrier of all threads of the cluster; shared memory written
// before it may be read by the other CTAs after it.
__device__ __forceinline__ void cluster_sync() {
	asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// cluster_arrive and cluster_wait are its halves, for a thread that may run ahead.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// cluster_arrive_relaxed orders nothing but barriers_ready.
__device__ __forceinline__ void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }

// remote is the address in another CTA's shared memory.
__device__ __forceinline__ uint32_t remote(uint32_t address, int rank) {
	uint32_t there;
	asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
	return there;
}

// barrier_arrive_remote is barrier_arrive for a barrier of another CTA, at a remote address. It
// orders nothing there: a release for the cluster compiles to a fence of all of memory.
__device__ __forceinline__ void barrier_arrive_remote(uint32_t barrier) {
	asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// send writes 8 bytes to a remote address, and counts them to the barrier there.
__device__ __forceinline__ void send(uint32_t to, float a, float b, uint32_t barrier) {
	asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to), "f"(a), "f"(b), "r"(barrier) : "memory");
}

// The same of 16 bytes.
__device__ __forceinline__ void send(uint32_t to, float4 v, uint32_t barrier) {
	asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(barrier) : "memory");
}

// read_remote reads 16 bytes at the same address of another CTA's shared memory.
__device__ __forceinline__ float4 read_remote(uint32_t address, int rank) {
	float4 v;
	asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(remote(address, rank)) : "memory");
	return v;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory"); }

template <int Registers> __device__ __forceinline__ void more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers)); }
template <int Registers> __device__ __forceinline__ void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers)); }

// wgmma is C [64, N] = A·B, plus C if add, over 16 columns of k, both from shared memory:
// one function for each N, told apart by C. Registers are listed eight at a time.
#define PG_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define PG_D16 PG_D8 ", " "%8, %9, %10, %11, %12, %13, %14, %15"
#define PG_D24 PG_D16 ", " "%16, %17, %18, %19, %20, %21, %22, %23"
#define PG_D32 PG_D24 ", " "%24, %25, %26, %27, %28, %29, %30, %31"
#define PG_D40 PG_D32 ", " "%32, %33, %34, %35, %36, %37, %38, %39"
#define PG_D48 PG_D40 ", " "%40, %41, %42, %43, %44, %45, %46, %47"
#define PG_D56 PG_D48 ", " "%48, %49, %50, %51, %52, %53, %54, %55"
#define PG_D64 PG_D56 ", " "%56, %57, %58, %59, %60, %61, %62, %63"
#define PG_D72 PG_D64 ", " "%64, %65, %66, %67, %68, %69, %70, %71"
#define PG_D80 PG_D72 ", " "%72, %73, %74, %75, %76, %77, %78, %79"
#define PG_D88 PG_D80 ", " "%80, %81, %82, %83, %84, %85, %86, %87"
#define PG_D96 PG_D88 ", " "%88, %89, %90, %91, %92, %93, %94, %95"
#define PG_D104 PG_D96 ", " "%96, %97, %98, %99, %100, %101, %102, %103"
#define PG_D112 PG_D104 ", " "%104, %105, %106, %107, %108, %109, %110, %111"
#define PG_D120 PG_D112 ", " "%112, %113, %114, %115, %116, %117, %118, %119"
#define PG_D128 PG_D120 ", " "%120, %121, %122, %123, %124, %125, %126, %127"
#define PG_C4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define PG_C8(i) PG_C4(i), PG_C4(i + 4)
#define PG_C16(i) PG_C8(i), PG_C8(i + 8)
#define PG_C32(i) PG_C16(i), PG_C16(i + 16)
#define PG_C64(i) PG_C32(i), PG_C32(i + 32)
#define PG_C128(i) PG_C64(i), PG_C64(i + 64)
#define PG_WGMMA(N, D, C, A, B, ADD)                                                                                     \
	__device__ __forceinline__ void wgmma(float (&c)[N / 2], uint64_t a, uint64_t b, int add) {                          \
		asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #ADD ", 0;\n"                                                  \
		             "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" D "}, %" #A ", %" #B ", p, 1, 1, 0, 0;\n}\n" \
		             : C : "l"(a), "l"(b), "r"(add));                                                                    \
	}
#define PG_LIST(...) __VA_ARGS__
PG_WGMMA(16, PG_D8, PG_C8(0), 8, 9, 10)
PG_WGMMA(32, PG_D16, PG_C16(0), 16, 17, 18)
PG_WGMMA(40, PG_D16 ", %16, %17, %18, %19", PG_LIST(PG_C16(0), PG_C4(16)), 20, 21, 22)
PG_WGMMA(56, PG_D24 ", %24, %25, %26, %27", PG_LIST(PG_C16(0), PG_C8(16), PG_C4(24)), 28, 29, 30)
PG_WGMMA(64, PG_D32, PG_C32(0), 32, 33, 34)
PG_WGMMA(72, PG_D32 ", %32, %33, %34, %35", PG_LIST(PG_C32(0), PG_C4(32)), 36, 37, 38)
PG_WGMMA(80, PG_D40, PG_LIST(PG_C32(0), PG_C8(32)), 40, 41, 42)
PG_WGMMA(96, PG_D48, PG_LIST(PG_C32(0), PG_C16(32)), 48, 49, 50)
PG_WGMMA(112, PG_D56, PG_LIST(PG_C32(0), PG_C16(32), PG_C8(48)), 56, 57, 58)
PG_WGMMA(120, PG_D56 ", %56, %57, %58, %59", PG_LIST(PG_C32(0), PG_C16(32), PG_C8(48), PG_C4(56)), 60, 61, 62)
PG_WGMMA(128, PG_D64, PG_C64(0), 64, 65, 66)
PG_WGMMA(136, PG_D64 ", %64, %65, %66, %67", PG_LIST(PG_C64(0), PG_C4(64)), 68, 69, 70)
PG_WGMMA(144, PG_D72, PG_LIST(PG_C64(0), PG_C8(64)), 72, 73, 74)
PG_WGMMA(160, PG_D80, PG_LIST(PG_C64(0), PG_C16(64)), 80, 81, 82)
PG_WGMMA(192, PG_D96, PG_LIST(PG_C64(0), PG_C32(64)), 96, 97, 98)
PG_WGMMA(224, PG_D112, PG_LIST(PG_C64(0), PG_C32(64), PG_C16(96)), 112, 113, 114)
PG_WGMMA(256, PG_D128, PG_C128(0), 128, 129, 130)
#undef PG_WGMMA

// wgmma_scores is C [64, 128] = A·B, plus C if add, over 16 columns of k, both half, from shared
// memory.
__device__ __forceinline__ void wgmma_scores(float (&c)[64], uint64_t a, uint64_t b, int add) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
	             "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
	             "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
	             "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
	             "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
	             "%64, %65, p, 1, 1, 0, 0;\n}\n"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
	               "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
	               "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
	               "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]),
	               "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]),
	               "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]),
	               "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
	               "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
	             : "l"(a), "l"(b), "r"(add));
}

// The same with A in registers, as mma.m16n8k16 has it.
__device__ __forceinline__ void wgmma_scores(float (&c)[64], const uint32_t *a, uint64_t b, int add) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" PG_D64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}\n"
	             : PG_C64(0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// wgmma_values is C [64, 64] = A·B, plus C if add, over 16 rows of B; A in registers,
// as mma.m16n8k16 has it, B [16, 64] in rows, described by operand_rows; both half.
__device__ __forceinline__ void wgmma_values(float (&c)[32], const uint32_t *a, uint64_t b, int add) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
	             "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
	             "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
	             "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
	               "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
	               "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
	               "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// wgmma_values is C [64, 128] = A·B, plus C if add, over 16 rows of B; A in registers,
// as mma.m16n8k16 has it, B [16, 128] in rows, described by operand_rows; both half.
__device__ __forceinline__ void wgmma_values(float (&c)[64], const uint32_t *a, uint64_t b, int add) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
	             "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
	             "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
	             "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
	             "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
	             "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
	               "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
	               "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
	               "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]),
	               "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]),
	               "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]),
	               "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
	               "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

#endif
