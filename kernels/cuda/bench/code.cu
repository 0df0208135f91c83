// Times code that a multiprocessor's instruction cache does not hold: a chain of kernels that run
// straight through so many KB of products, by how many of them take turns. On an H200 what two of
// 16 KB need is kept, and what comes from L2 takes 1 µs more for 16 KB (docs/performance.md, "Code").
#include "../common.cuh"
#include "bench.cuh"

using namespace bench;

namespace {

struct CodeParams {
	float *out;
	float a;
};

// Four independent products, 64 bytes of code.
#define LINE asm volatile("fma.rn.f32 %0, %0, %4, %4;\nfma.rn.f32 %1, %1, %4, %4;\nfma.rn.f32 %2, %2, %4, %4;\nfma.rn.f32 %3, %3, %4, %4;" : "+f"(x), "+f"(y), "+f"(z), "+f"(w) : "f"(p.a));
#define LINES_4 LINE LINE LINE LINE
#define LINES_16 LINES_4 LINES_4 LINES_4 LINES_4
#define LINES_64 LINES_16 LINES_16 LINES_16 LINES_16
#define LINES_256 LINES_64 LINES_64 LINES_64 LINES_64

template <int ID, int KB> __global__ void straight(const __grid_constant__ CodeParams p) {
	grid_wait();
	grid_trigger();
	float x = p.a + ID, y = p.a * 2, z = p.a * 3, w = p.a * 4;
	if (KB >= 16) { LINES_256 }
	if (KB >= 32) { LINES_256 }
	if (x + y + z + w == 12345.0f) *p.out = x; // never
}

template <int KB> void row(int sms) {
	void (*kernels[])(CodeParams) = {straight<0, KB>, straight<1, KB>, straight<2, KB>, straight<3, KB>, straight<4, KB>, straight<5, KB>, straight<6, KB>, straight<7, KB>};
	printf("%d KB |", KB);
	for (int turns : {1, 2, 3, 4, 6, 8})
		printf(" %d: %.2f", turns, time(840, [&](int i, cudaStream_t stream) { launch(kernels[i % turns], dim3(sms), 128, 0, CodeParams{nullptr, 1.5f}, stream, true); }));
	printf("\n");
}

} // namespace

void bench_code(bool, bool times) {
	if (!times) return;
	cudaDeviceProp device;
	CHECK(cudaGetDeviceProperties(&device, 0));
	printf("code: µs a kernel, by how many take turns\n");
	row<16>(device.multiProcessorCount);
	row<32>(device.multiProcessorCount);
}
