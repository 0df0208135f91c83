// Times what dependent kernels take without weights and products: a chain of kernels, each of which
// starts at once, waits for the one before, reads all of what that wrote, and writes its share of as
// much, with the CTAs, threads and shared memory of a product. Beside it the same with a barrier of a
// cluster at the end, which the sums of a product cut along k need.
#include "../wgmma.cuh"
#include "bench.cuh"

using namespace bench;

namespace {

constexpr int THREADS = 288, SHARED = 200 << 10;

struct ChainParams {
	const int4 *from;
	int4 *to;
	int count;     // of int4 in either
	bool clusters; // wait for the CTAs of the cluster before the end
};

__global__ void __launch_bounds__(THREADS) chain_link(const __grid_constant__ ChainParams p) {
	grid_trigger();
	grid_wait();
	int4 sum = {};
#pragma unroll 8
	for (int i = threadIdx.x; i < p.count; i += THREADS) {
		int4 v = __ldcg(p.from + i);
		sum.x ^= v.x, sum.y ^= v.y, sum.z ^= v.z, sum.w ^= v.w;
	}
	__syncthreads(); // a product needs all tokens
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
	if (p.clusters) cluster_sync();
#endif
	for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.count; i += gridDim.x * THREADS) p.to[i] = sum;
}

} // namespace

void bench_chain(bool, bool times) {
	if (!times) return;
	cudaDeviceProp device;
	CHECK(cudaGetDeviceProperties(&device, 0));
	int sms = device.multiProcessorCount;
	const struct { const char *name; int width, layers; } models[] = {{"0.5B", 896, 24}, {"1.5B", 1536, 28}, {"7B", 3584, 28}};
	printf("chain: µs a kernel that reads its tokens and writes as many, without and with a barrier of clusters of four; ms of seven and of five a layer\n");
	for (auto &m : models)
		for (int tokens : {1, 16, 64}) {
			int count = tokens * m.width * 2 / 16, grid = sms / 4 * 4;
			Memory<int4> a(count), b(count);
			a.set(0), b.set(0);
			double us[2];
			for (int c = 0; c < 2; c++)
				us[c] = time(7 * m.layers, [&](int i, cudaStream_t stream) {
					ChainParams p{i % 2 ? b.data : a.data, i % 2 ? a.data : b.data, count, c > 0};
					launch(chain_link, dim3(grid), THREADS, SHARED, p, stream, true, c ? 4 : 1);
				});
			printf("%-4s %-2d tokens %5.2f %5.2f | %.3f %.3f\n", m.name, tokens, us[0], us[1], 7e-3 * m.layers * us[0], 5e-3 * m.layers * us[0]);
		}
}
