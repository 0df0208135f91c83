// Checks and times gemm_mma.cu.
#include "../gemm_mma.cu"
#include "gemm_case.cuh"

using namespace bench;

namespace {

struct Variant {
	int bm, bn;
	Kernels<GemmParams> kernels;
	size_t shared;
};

const Variant variants[] = {
	{128, 128, KERNELS_OF(gemm_mma_128_128), 3 * Tile<128, 128, 2, 2, 3>::STAGE},
	{16, 64, KERNELS_OF(gemm_mma_16_64), 6 * Tile<16, 64, 1, 4, 6>::STAGE},
};

void run(Projection &t, const Variant &v, int slots, bool whole, int c, cudaStream_t stream, bool pdl) {
	GemmParams p = t.p;
	int steps = p.k / BK;
	p.tiles = (p.n + v.bn - 1) / v.bn;
	int64_t tiles = (int64_t)((p.m + v.bm - 1) / v.bm) * p.tiles;
	p.per = whole ? steps : (tiles * steps + slots - 1) / slots;
	p.w += c * t.weight_elems;
	launch(v.kernels[t.kind], dim3((tiles * steps + p.per - 1) / p.per), 128, v.shared, p, stream, pdl);
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants)
		for (int slots : {264, 31})
			for (bool whole : {true, false}) {
				if (!whole) t.room((size_t)2 * slots * v.bm * v.bn, (size_t)((m + v.bm - 1) / v.bm) * ((n + v.bn - 1) / v.bn));
				for (int again = 0; again < 2; again++) {
					t.poison();
					run(t, v, slots, whole, 0, 0, again);
					t.check("mma " + std::to_string(v.bm) + "x" + std::to_string(v.bn) + (whole ? " whole " : " cut ") + std::to_string(slots) + " " + t.name());
				}
			}
}

} // namespace

void bench_mma(bool check, bool times) {
	if (check) {
		for (int m : {1, 16, 17, 128, 200, 333}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 1208, 2048, SWIGLU, 0);
		}
		check_case(1100, 1536, 512, QKV, 128);
		printf("mma: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("mma: µs (TFLOP/s)\n");
	for (const Shape &s : shapes) {
		if (s.kind == STORE) continue;
		for (int m : tokens_or({1, 128, 256, 1024, 4096}, 8192)) {
			if (!chosen(s)) continue;
			int copies = m > 512 ? 2 : rotation(s.n, s.k), n = m > 512 ? 3 : std::max(copies, 8);
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.poison();
			double flops = 2.0 * m * s.n * s.k;
			printf("%-12s m %-4d |", s.name, m);
			for (const Variant &v : variants) {
				if ((v.bm == 16) != (m <= 16)) continue;
				for (bool whole : {true, false}) {
					if (!whole && m > 1024) continue;
					if (!whole) t.room((size_t)2 * 264 * v.bm * v.bn, (size_t)((m + v.bm - 1) / v.bm) * ((s.n + v.bn - 1) / v.bn));
					double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, 264, whole, i % copies, stream, false); }, 7);
					printf(" %dx%d%s %.1f (%.0f) |", v.bm, v.bn, whole ? "w" : "c", us, flops / us / 1e6);
				}
			}
			printf("\n");
			fflush(stdout);
		}
	}
}
