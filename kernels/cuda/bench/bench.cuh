// What the kernel test programs share: memory, random data, comparison with
// float64, and timing by graph replays over rotating data that no cache holds.
#pragma once

#include "../gemm.cuh"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#define CHECK(call)                                                                              \
	do {                                                                                         \
		cudaError_t check_error = (call);                                                        \
		if (check_error != cudaSuccess) {                                                        \
			printf("FAIL %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(check_error)); \
			exit(1);                                                                             \
		}                                                                                        \
	} while (0)

namespace bench {

constexpr double READ_BYTES = 4.60e12, FLOPS = 790e12; // measured ceilings of an H200

inline int failures = 0;
inline std::vector<std::string> words; // of the command, that choose what is timed

// Memory is a device allocation that lives to the end of its scope.
template <class T> struct Memory {
	T *data = nullptr;
	size_t size = 0;
	explicit Memory(size_t n = 0) { resize(n); }
	Memory(Memory &&o) : data(o.data), size(o.size) { o.data = nullptr; }
	Memory(const Memory &) = delete;
	~Memory() { cudaFree(data); }
	void resize(size_t n) {
		CHECK(cudaFree(data));
		data = nullptr, size = n;
		if (n) CHECK(cudaMalloc(&data, n * sizeof(T)));
	}
	void set(int byte) { CHECK(cudaMemset(data, byte, size * sizeof(T))); }
	void upload(const std::vector<T> &v) {
		if (v.size() > size) resize(v.size());
		CHECK(cudaMemcpy(data, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
	}
	std::vector<T> download() const {
		std::vector<T> v(size);
		CHECK(cudaMemcpy(v.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
		return v;
	}
};

static __device__ __forceinline__ float noise(uint64_t seed, uint64_t i) {
	uint64_t z = seed * 0xD1342543DE82EF95 + (i + 1) * 0x9E3779B97F4A7C15;
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
	z ^= z >> 31;
	return ((int64_t)(z >> 40) - (1 << 23)) / (float)(1 << 23);
}

template <class T> __global__ void fill_kernel(T *to, size_t n, uint64_t seed, float scale) {
	for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) to[i] = (T)(noise(seed, i) * scale);
}

inline uint64_t next_seed() {
	static uint64_t seed = 1;
	return seed++;
}

template <class T> void fill(T *to, size_t n, float scale) {
	fill_kernel<<<1024, 256>>>(to, n, next_seed(), scale);
	CHECK(cudaGetLastError());
}

inline double value(float x) { return x; }
inline double value(half x) { return __half2float(x); }

// compare fails on a relative error of the whole beyond `limit`, an element off by more
// than 40 times that of the largest, or anything that is not a number. Elements where
// `want` is poison (NaN) must be poison still.
template <class T> void compare(const std::string &what, const std::vector<T> &got, const std::vector<T> &want, double limit) {
	double error = 0, norm = 0, worst = 0, largest = 0;
	size_t bad = 0, at = 0;
	for (size_t i = 0; i < want.size(); i++) {
		double x = value(got[i]), y = value(want[i]);
		if (std::isnan(y) ? !std::isnan(x) : !std::isfinite(x)) {
			if (!bad++) at = i;
			continue;
		}
		if (std::isnan(y)) continue;
		error += (x - y) * (x - y), norm += y * y;
		largest = std::max(largest, std::fabs(y));
		if (std::fabs(x - y) > worst) worst = std::fabs(x - y), at = bad ? at : i;
	}
	double relative = std::sqrt(error / std::max(norm, 1e-30));
	bool ok = bad == 0 && relative <= limit && worst <= 40 * limit * largest;
	if (!ok) failures++;
	if (!ok || getenv("VERBOSE"))
		printf("%s %s: relative %.3g (allowed %.3g), worst %.3g of %.3g at %zu, %zu not as they should be\n", ok ? "ok  " : "FAIL", what.c_str(), relative, limit, worst, largest, at, bad);
}

// launch starts a kernel, with programmatic dependent launch if pdl.
template <class P> void launch(void (*kernel)(P), dim3 grid, int threads, size_t shared, const P &params, cudaStream_t stream = 0, bool pdl = false, int cluster = 1) {
	CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared));
	cudaLaunchConfig_t config = {};
	config.gridDim = grid, config.blockDim = dim3(threads), config.dynamicSmemBytes = shared, config.stream = stream;
	cudaLaunchAttribute attributes[2];
	config.attrs = attributes;
	if (pdl) {
		attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
		attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
	}
	if (cluster > 1) {
		attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
		attributes[config.numAttrs].val.clusterDim.x = cluster, attributes[config.numAttrs].val.clusterDim.y = 1;
		attributes[config.numAttrs++].val.clusterDim.z = 1;
	}
	CHECK(cudaLaunchKernelEx(&config, kernel, params));
}

// time is the median time of fn(i, stream), µs: graphs of n calls, i = 0 … n−1. Where the card's
// power decides, what ran before counts, unless the card rests so many ms.
inline double time(int n, const std::function<void(int, cudaStream_t)> &fn, int replays = 15, int rest = 0) {
	cudaStream_t stream;
	cudaGraph_t graph;
	cudaGraphExec_t exec;
	cudaEvent_t start, stop;
	CHECK(cudaStreamCreate(&stream));
	CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
	for (int i = 0; i < n; i++) fn(i, stream);
	CHECK(cudaStreamEndCapture(stream, &graph));
	CHECK(cudaGraphInstantiate(&exec, graph, 0));
	CHECK(cudaEventCreate(&start));
	CHECK(cudaEventCreate(&stop));
	std::vector<float> times;
	std::this_thread::sleep_for(std::chrono::milliseconds(rest));
	for (int i = 0; i < replays + 2; i++) {
		CHECK(cudaEventRecord(start, stream));
		CHECK(cudaGraphLaunch(exec, stream));
		CHECK(cudaEventRecord(stop, stream));
		CHECK(cudaEventSynchronize(stop));
		float ms;
		CHECK(cudaEventElapsedTime(&ms, start, stop));
		if (i >= 2) times.push_back(ms * 1e3f / n);
	}
	std::sort(times.begin(), times.end());
	cudaGraphExecDestroy(exec);
	cudaGraphDestroy(graph);
	cudaStreamDestroy(stream);
	cudaEventDestroy(start);
	cudaEventDestroy(stop);
	return times[times.size() / 2];
}

} // namespace bench

// One part each, in files of their own.
void bench_skinny(bool check, bool times);
void bench_mma(bool check, bool times);
void bench_sm90(bool check, bool times);
void bench_stream(bool check, bool times);
void bench_wide(bool check, bool times);
void bench_decode(bool check, bool times);
void bench_prefill(bool check, bool times);
void bench_copies(bool check, bool times);
void bench_chain(bool check, bool times);
void bench_code(bool check, bool times);
