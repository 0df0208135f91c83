// Checks and times gemm_sm90.cu.
#include "../gemm_sm90.cu"
#include "gemm_case.cuh"
#include "tensor_map.cuh"

using namespace bench;

namespace {

struct Variant {
	const char *name;
	int rows, bn, cluster;
	Kernels<Sm90Params> kernels;
	bool takes(int kind) const { return kernels[kind]; }
	int stage() const { return (rows + bn) * 128; }
	int rest() const { return rows / 16 * OUT_BYTES + (2 * 8 + 2) * 8 + 4 * rows; } // outputs, barriers, scales
	int stages() const { return std::min(8, (227 * 1024 - rest()) / stage()); }
	size_t shared() const { return stages() * stage() + rest(); }
};

#define PAIR(NAME, ROWS, BN, ...) {NAME, ROWS, BN, 1, __VA_ARGS__}, {NAME "x2", ROWS, BN, 2, __VA_ARGS__}
#define VARIANT(BN) PAIR(#BN, 128, BN, KERNELS_OF(gemm_sm90_##BN))
#define LAYERS_OF(BN) PAIR(#BN, 128, BN, {nullptr, gemm_sm90_##BN##_residual, gemm_sm90_##BN##_swiglu, gemm_sm90_##BN##_qkv})
#define OF_192(BN) PAIR(#BN "_192", 192, BN, {gemm_sm90_##BN##_192_store, nullptr, gemm_sm90_##BN##_192_swiglu})
const Variant variants[] = {
	LAYERS_OF(64),
	LAYERS_OF(96),
	PAIR("112", 128, 112, {nullptr, gemm_sm90_112_residual, nullptr, gemm_sm90_112_qkv}),
	PAIR("128", 128, 128, {gemm_sm90_128_store, gemm_sm90_128_residual, nullptr, gemm_sm90_128_qkv}),
	VARIANT(144),
	PAIR("160", 128, 160, {nullptr, nullptr, gemm_sm90_160_swiglu}),
	VARIANT(192),
	LAYERS_OF(224),
	VARIANT(256),
	VARIANT(288),
	PAIR("turns_128", 128, 128, {nullptr, nullptr, gemm_sm90_turns_128_swiglu}),
	OF_192(96),
	OF_192(144),
};

void run(Projection &t, const Variant &v, int sms, int c, cudaStream_t stream, bool pdl) {
	Sm90Params p{};
	p.g = t.p;
	p.x = tokens_map(t.p.x, up(t.p.m, 256), t.p.ldx, v.rows, 1);
	p.w = weights_map(t.p.w + c * t.weight_elems, up(t.p.n, 128), t.p.k, v.bn / 2, 1);
	p.g.tiles = (p.g.n + v.bn - 1) / v.bn;
	int tiles = up((p.g.m + v.rows - 1) / v.rows, v.cluster) * p.g.tiles;
	launch(v.kernels[t.kind], dim3(std::min(tiles, std::max(1, sms / v.cluster) * v.cluster)), v.rows * 2 + 128, v.shared(), p, stream, pdl, v.cluster);
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants) {
		if (!v.takes(kind)) continue;
		for (int sms : {132, 13})
			for (int again = 0; again < 2; again++) {
				t.poison();
				run(t, v, sms, 0, 0, again);
				t.check(std::string("sm90 ") + v.name + " " + std::to_string(sms) + " " + t.name());
			}
	}
}

// check_angles has three tiles of QKV for each CTA, whose angles share the ring with few steps of
// operands: one, or all but one that it holds. Three rows of tiles leave a CTA of a pair without
// tokens; heads of 32 put the border of keys and values into a tile of any width.
void check_angles(int n, int head_dim) {
	for (int k : {64, 192, 256, 320, 384, 448}) {
		Projection t(300, n, k, QKV, head_dim, 1);
		t.reference();
		for (const Variant &v : variants) {
			if (!v.takes(QKV) || k != 64 && k != (v.stages() - 1) * 64) continue;
			int tiles = up(3, v.cluster) * ((n + v.bn - 1) / v.bn), sms = up((tiles + 2) / 3, v.cluster);
			t.poison();
			run(t, v, sms, 0, 0, true);
			t.check(std::string("sm90 ") + v.name + " " + std::to_string(sms) + " " + t.name());
		}
	}
}

} // namespace

void bench_sm90(bool check, bool times) {
	if (check) {
		for (int m : {1, 65, 128, 180, 200, 333}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 1208, 2048, SWIGLU, 0);
		}
		check_case(1500, 2048, 512, QKV, 128);
		check_case(333, 1248, 448, QKV, 96);
		check_angles(1536, 128);
		check_angles(1152, 64);
		check_angles(1056, 32);
		printf("sm90: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("sm90: µs (TFLOP/s) by columns of a tile, x2 in clusters of two\n");
	for (const Shape &s : shapes)
		for (int m : tokens_or({256, 512, 1024, 2048, 8192}, 8192)) {
			if (s.kind == STORE || !chosen(s)) continue;
			int copies = std::min(rotation(s.n, s.k), m > 4096 ? 4 : 16), n = m > 4096 ? 4 : std::max(copies, 8);
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.poison();
			printf("%-12s m %-4d |", s.name, m);
			for (const Variant &v : variants) {
				if (!v.takes(s.kind)) continue;
				double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, 132, i % copies, stream, true); }, 5, 20);
				printf(" %s %.1f (%.0f)", v.name, us, 2.0 * m * s.n * s.k / us / 1e6);
			}
			printf("\n");
			fflush(stdout);
		}
}
