// Checks and times gemm_stream.cu by size of cluster.
#include "../gemm_stream.cu"
#include "gemm_case.cuh"
#include "tensor_map.cuh"

using namespace bench;

namespace {

struct Variant {
	int mt, stages, threads, per_sm;
	void (*kernel)(StreamParams);
	size_t shared() const { return 1024 + stages * (128 + mt) * 128 + 8 * 16 * 20 * 4 + 16 * stages; }
};

const Variant variants[] = {
	{16, 5, 288, 2, gemm_stream_16},   {32, 5, 288, 2, gemm_stream_32},   {64, 4, 288, 2, gemm_stream_64},
	{128, 6, 384, 1, gemm_stream_128}, {256, 4, 384, 1, gemm_stream_256},
};

// run launches with clusters of that size.
void run(Projection &t, const Variant &v, int cluster, int c, cudaStream_t stream, bool pdl) {
	StreamParams p{};
	p.g = t.p;
	p.x = tensor_map(t.p.x, up(t.p.m, 256), t.p.ldx, v.mt < 128 ? 16 : 128);
	p.w = tensor_map(t.p.w + c * t.weight_elems, up(t.p.n, 128), t.p.ldw, 128);
	p.g.tiles = (p.g.n + 127) / 128;
	launch(v.kernel, dim3(p.g.tiles * cluster), v.threads, v.shared(), p, stream, pdl, cluster);
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants) {
		if (m > v.mt) continue;
		for (int cluster : {1, 2, 3, 4, 8}) {
			if (cluster > t.p.k / 64) continue;
			for (int again = 0; again < 2; again++) {
				t.poison();
				run(t, v, cluster, 0, 0, again);
				t.check("stream " + std::to_string(v.mt) + " cluster " + std::to_string(cluster) + " " + t.name());
			}
		}
	}
}

} // namespace

void bench_stream(bool check, bool times) {
	if (check) {
		for (int m : {1, 16, 29, 64, 100, 128, 200, 256}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 1208, 2048, SWIGLU, 0);
		}
		printf("stream: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("stream: µs with dependent launch, by size of cluster\n");
	for (const Shape &s : shapes)
		for (int m : {1, 16, 32, 64, 128, 256}) {
			int copies = rotation(s.n, s.k), n = std::max(copies, 8), tiles = (s.n + 127) / 128;
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.poison();
			double floor = 2.0 * s.n * s.k / READ_BYTES * 1e6;
			printf("%-12s m %-3d floor %6.1f |", s.name, m, floor);
			for (const Variant &v : variants) {
				if (m > v.mt || v.mt > 16 && m * 2 <= v.mt) continue;
				int slots = 132 * v.per_sm;
				for (int cluster : {1, 2, 4, 8}) {
					if (cluster > s.k / 64 || cluster > 1 && tiles * cluster > slots) continue;
					double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, cluster, i % copies, stream, true); }, 7);
					printf(" %d: %.1f", cluster, us);
				}
			}
			printf("\n");
			fflush(stdout);
		}
}
