// Checks and times gemm_stream.cu: tiles by clusters and dealt out as a line.
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

// run launches with clusters of that size, or as a line over `slots` CTAs.
void run(Projection &t, const Variant &v, int cluster, int slots, int c, cudaStream_t stream, bool pdl) {
	StreamParams p{};
	p.g = t.p;
	p.x = tensor_map(t.p.x, up(t.p.m, 256), t.p.ldx, v.mt < 128 ? 16 : 128);
	p.w = tensor_map(t.p.w + c * t.weight_elems, up(t.p.n, 128), t.p.ldw, 128);
	p.g.tiles = (p.g.n + 127) / 128;
	int steps = p.g.k / 64;
	p.g.per = cluster ? 0 : (p.g.tiles * steps + slots - 1) / slots;
	int grid = cluster ? p.g.tiles * cluster : (p.g.tiles * steps + p.g.per - 1) / p.g.per;
	launch(v.kernel, dim3(grid), v.threads, v.shared(), p, stream, pdl, cluster);
}

void room(Projection &t, const Variant &v) { t.room((size_t)2 * 264 * 128 * v.mt, (t.p.n + 127) / 128); }

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants) {
		if (m > v.mt) continue;
		room(t, v);
		for (int way : {-132, -13, -3, 1, 2, 3, 4, 8}) {
			if (way > t.p.k / 64) continue;
			for (int again = 0; again < 2; again++) {
				t.poison();
				run(t, v, std::max(way, 0), std::max(-way, 0), 0, 0, again);
				t.check("stream " + std::to_string(v.mt) + " way " + std::to_string(way) + " " + t.name());
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
	printf("stream: µs with dependent launch, by cluster size or as a line (l)\n");
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
				room(t, v);
				for (int way : {0, 1, 2, 4, 8}) {
					if (way > s.k / 64 || way > 1 && tiles * way > slots || way == 0 && tiles * 4 < slots) continue;
					double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, way, slots, i % copies, stream, true); }, 7);
					printf(" %s %.1f", way ? std::to_string(way).c_str() : "l", us);
				}
			}
			printf("\n");
			fflush(stdout);
		}
}
