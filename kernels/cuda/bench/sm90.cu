// Checks and times gemm_sm90.cu.
#include "../gemm_sm90.cu"
#include "gemm_case.cuh"
#include "tensor_map.cuh"

using namespace bench;

namespace {

struct Variant {
	int bn, stages;
	void (*kernel)(Sm90Params);
	size_t shared() const { return 1024 + stages * (128 + bn) * 128 + 8 * 16 * 40 * 4 + 16 * stages; }
};

const Variant variants[] = {{256, 4, gemm_sm90_256}, {128, 6, gemm_sm90_128}};

void run(Projection &t, const Variant &v, int sms, int c, cudaStream_t stream, bool pdl) {
	Sm90Params p{};
	p.g = t.p;
	p.x = tensor_map(t.p.x, up(t.p.m, 256), t.p.ldx, 128);
	p.w = tensor_map(t.p.w + c * t.weight_elems, up(t.p.n, 128), t.p.ldw, 128);
	p.g.tiles = (p.g.n + v.bn - 1) / v.bn;
	int rows = (p.g.m + 127) / 128;
	int grid = std::min(rows * p.g.tiles, sms);
	launch(v.kernel, dim3(grid), THREADS, v.shared(), p, stream, pdl);
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants)
		for (int sms : {132, 13, 1})
			for (int again = 0; again < 2; again++) {
				t.poison();
				run(t, v, sms, 0, 0, again);
				t.check("sm90 " + std::to_string(v.bn) + " " + std::to_string(sms) + " " + t.name());
			}
}

} // namespace

void bench_sm90(bool check, bool times) {
	if (check) {
		for (int m : {1, 65, 128, 200, 333}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 1208, 2048, SWIGLU, 0);
		}
		check_case(1500, 2048, 512, QKV, 128);
		printf("sm90: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("sm90: µs (TFLOP/s)\n");
	for (const Shape &s : shapes)
		for (int m : {64, 128, 256, 512, 1024, 2048, 8192}) {
			if (s.kind == STORE && m > 256) continue;
			int copies = m > 512 ? 2 : rotation(s.n, s.k), n = m > 512 ? 4 : std::max(copies, 8);
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.poison();
			double flops = 2.0 * m * s.n * s.k;
			printf("%-12s m %-4d |", s.name, m);
			for (const Variant &v : variants) {
				double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, 132, i % copies, stream, true); }, 7);
				printf(" %d %.1f (%.0f) |", v.bn, us, flops / us / 1e6);
			}
			printf("\n");
			fflush(stdout);
		}
}
