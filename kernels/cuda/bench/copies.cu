// Times swaps, and what they cost a kernel that only reads: batches of blocks of the three
// models, anywhere in 1 GiB on both sides, beside reads of 1 GiB in equal shares. H100 80GB HBM3,
// 2026-11-26: reads at 2.97 TB/s are slowed by 1.7 % beside 54 GB/s out, by 6.9 % beside 55 GB/s in.
#include "bench.cuh"

#include <numeric>
#include <random>

using namespace bench;

namespace {

constexpr size_t POOL = 1u << 30, SHARE = 512; // bytes; threads of a CTA
constexpr int PASSES = 64;

__global__ void __launch_bounds__(SHARE) read_share(const int4 *from, size_t per, int *out) {
	from += blockIdx.x * per;
	int sum = 0;
	for (size_t i = threadIdx.x; i < per; i += 8 * SHARE) {
		int4 v[8] = {};
#pragma unroll
		for (int j = 0; j < 8; j++)
			if (i + j * SHARE < per) v[j] = __ldcs(from + i + j * SHARE);
#pragma unroll
		for (int j = 0; j < 8; j++) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
	}
	if (sum == 0x5EED) *out = sum; // keeps the reads
}

// Swap is a pool of blocks on both sides and what a batch copies.
struct Swap {
	Memory<char> device{POOL};
	char *host = nullptr;
	cudaStream_t stream;
	cudaEvent_t began, ended;
	Swap() {
		CHECK(cudaHostAlloc(&host, POOL, cudaHostAllocDefault));
		CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
		CHECK(cudaEventCreate(&began));
		CHECK(cudaEventCreate(&ended));
	}
	~Swap() {
		cudaFreeHost(host);
		cudaStreamDestroy(stream);
		cudaEventDestroy(began);
		cudaEventDestroy(ended);
	}
	// start copies so many bytes.
	void start(bool in, size_t block, size_t bytes) {
		size_t have = POOL / block, n = bytes / block;
		std::vector<size_t> on(have), at(have);
		std::iota(on.begin(), on.end(), 0), std::iota(at.begin(), at.end(), 0);
		std::mt19937 random(7);
		std::shuffle(on.begin(), on.end(), random), std::shuffle(at.begin(), at.end(), random);
		std::vector<void *> to;
		std::vector<const void *> from;
		for (size_t i = 0; i < n; i++) {
			char *d = device.data + on[i % have] * block, *h = host + at[i % have] * block;
			to.push_back(in ? d : h), from.push_back(in ? h : d);
		}
		std::vector<size_t> sizes(n, block);
		cudaMemcpyAttributes order = {};
		order.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
		size_t first = 0;
		CHECK(cudaEventRecord(began, stream));
		CHECK(cudaMemcpyBatchAsync(to.data(), from.data(), sizes.data(), n, &order, &first, 1, stream));
		CHECK(cudaEventRecord(ended, stream));
	}
	// wait returns bytes per ns.
	double wait(size_t block, size_t bytes) {
		float ms;
		CHECK(cudaEventSynchronize(ended));
		CHECK(cudaEventElapsedTime(&ms, began, ended));
		return bytes / block * block / (ms * 1e6);
	}
};

} // namespace

void bench_copies(bool, bool times) {
	if (!times) return;
	cudaDeviceProp device;
	CHECK(cudaGetDeviceProperties(&device, 0));
	Swap swap;
	Memory<char> data(POOL);
	Memory<int> out(1);
	fill((float *)data.data, POOL / 4, 1);
	CHECK(cudaDeviceSynchronize());
	int grid = 4 * device.multiProcessorCount;
	cudaStream_t stream;
	cudaEvent_t start, stop;
	CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
	CHECK(cudaEventCreate(&start));
	CHECK(cudaEventCreate(&stop));
	auto reads = [&] { // ms
		float ms;
		for (int i = -2; i < PASSES; i++) {
			if (i == 0) CHECK(cudaEventRecord(start, stream));
			read_share<<<grid, SHARE, 0, stream>>>((const int4 *)data.data, POOL / 16 / grid, out.data);
		}
		CHECK(cudaEventRecord(stop, stream));
		CHECK(cudaEventSynchronize(stop));
		CHECK(cudaEventElapsedTime(&ms, start, stop));
		return ms;
	};
	reads();
	const struct { const char *name; size_t block; } blocks[] = {{"0.5B", 12288 * 16}, {"1.5B", 28672 * 16}, {"7B", 57344 * 16}, {"runs", 32u << 20}};
	for (auto &b : blocks)
		for (bool in : {false, true}) {
			float alone = reads();
			size_t bytes = 60e6 * (2 * alone + 10); // longer than the reads
			swap.start(in, b.block, bytes);
			float beside = reads();
			bool early = cudaEventQuery(swap.ended) != cudaErrorNotReady;
			double rate = swap.wait(b.block, bytes);
			alone = std::min(alone, reads());
			printf("copies %s %4zu KiB %-4s %5.1f GB/s; reads at %.0f GB/s slowed by %.2f %%%s\n", in ? "in " : "out", b.block >> 10, b.name, rate, POOL / 1e6 * PASSES / alone, 100 * (beside / alone - 1), early ? ", but the copies ended first" : "");
		}
	cudaStreamDestroy(stream);
	cudaEventDestroy(start);
	cudaEventDestroy(stop);
}
