// Checks and times gemm_stream.cu by size of cluster.
#include "../gemm_stream.cu"
#include "gemm_case.cuh"
#include "tensor_map.cuh"

using namespace bench;

namespace {

struct Variant {
	int bn, mt, stages;
	Kernels<StreamParams> kernels, clusters;
	bool takes(int kind) const { return kernels[kind]; }
	size_t shared() const { return 1024 + stages * (bn + mt) * 128 + 8 * 16 * 20 * 4 + 16 * stages; }
};

#define VARIANT(BN, MT, STAGES) {BN, MT, STAGES, KERNELS_OF(gemm_stream_##BN##_##MT), KERNELS_OF(gemm_stream_##BN##_##MT##_clusters)}
#define RESIDUAL_ONLY(NAME) {nullptr, NAME##_residual, nullptr, nullptr}
#define RESIDUAL_QKV(NAME) {nullptr, NAME##_residual, nullptr, NAME##_qkv}
#define SOME(OF, BN, MT, STAGES) {BN, MT, STAGES, OF(gemm_stream_##BN##_##MT), OF(gemm_stream_##BN##_##MT##_clusters)}
const Variant variants[] = {
	VARIANT(128, 16, 11), VARIANT(128, 64, 8), VARIANT(128, 128, 6), SOME(RESIDUAL_QKV, 128, 160, 5), VARIANT(128, 192, 5),
	SOME(RESIDUAL_ONLY, 128, 224, 4),
};

constexpr int SMS = 132;

int tiles_of(const GemmParams &p, const Variant &v) { return (p.n + v.bn - 1) / v.bn * ((p.m + v.mt - 1) / v.mt); }

// run launches with clusters of that size, or, with 1, tiles dealt to all multiprocessors,
// with 0 without cutting any.
void run(Projection &t, const Variant &v, int cluster, int c, cudaStream_t stream, bool pdl) {
	StreamParams p{};
	p.g = t.p;
	p.x = tokens_map(t.p.x, up(t.p.m, 256), t.p.ldx, v.mt, 1);
	p.w = weights_map(t.p.w + c * t.weight_elems, up(t.p.n, 128), t.p.k, 128, 1);
	p.g.tiles = (p.g.n + v.bn - 1) / v.bn;
	int tiles = tiles_of(p.g, v), grid = tiles * cluster;
	if (cluster <= 1) {
		grid = SMS, p.g.per = 1;
		int cut = tiles % grid;
		if (cut && cluster == 1) p.g.per = std::max(1, std::min(grid / cut, p.g.k / 64));
		if (p.g.per == 1) grid = std::min(grid, tiles);
	}
	launch((cluster > 1 ? v.clusters : v.kernels)[t.kind], dim3(grid), 288, v.shared(), p, stream, pdl, std::max(cluster, 1));
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants) {
		if (!v.takes(kind)) continue;
		t.room((size_t)SMS * 256 * 128, 1 << 14);
		for (int cluster : {0, 1, 2, 3, 4, 8}) {
			if (cluster > t.p.k / 64) continue;
			for (int again = 0; again < 2; again++) {
				t.poison();
				run(t, v, cluster, 0, 0, again);
				t.check("stream " + std::to_string(v.bn) + "x" + std::to_string(v.mt) + " cluster " + std::to_string(cluster) + " " + t.name());
			}
		}
	}
}

} // namespace

double bench::fastest_stream(Projection &t, int copies, std::string &name) {
	double best = 1e9;
	for (const Variant &v : variants) {
		if (!v.takes(t.kind) || v.mt > 16 && t.p.m * 2 <= v.mt || t.p.m > 2 * v.mt) continue;
		for (int cluster : {0, 1, 2, 3, 4, 8}) {
			if (cluster > t.p.k / 64 || cluster > 1 && tiles_of(t.p, v) * cluster > SMS) continue;
			double us = time(std::max(copies, 8), [&](int i, cudaStream_t stream) { run(t, v, cluster, i % copies, stream, true); }, 5);
			if (us < best) best = us, name = std::to_string(v.bn) + "x" + std::to_string(v.mt) + " " + std::to_string(cluster);
		}
	}
	return best;
}

void bench_stream(bool check, bool times) {
	if (check) {
		for (int m : {1, 16, 29, 64, 100, 128, 150, 200, 256}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 1208, 2048, SWIGLU, 0);
			check_case(m, 150 * 128, 256, STORE, 0); // whole tiles, and pieces of 18
		}
		printf("stream: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("stream: µs with dependent launch, by tile and size of cluster\n");
	for (const Shape &s : shapes)
		for (int m : tokens_or({16, 32, 64, 128, 256, 512}, 512)) {
			if (!chosen(s)) continue;
			int copies = rotation(s.n, s.k), n = std::max(copies, 8);
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.room((size_t)SMS * 256 * 128, 1 << 14);
			t.poison();
			double floor = 2.0 * s.n * s.k / READ_BYTES * 1e6;
			printf("%-12s m %-3d floor %6.1f |", s.name, m, floor);
			for (const Variant &v : variants) {
				if (!v.takes(s.kind) || v.mt > 16 && m * 2 <= v.mt || m > 4 * v.mt || tiles_of(t.p, v) > SMS && m > 2 * v.mt) continue;
				printf(" %dx%d", v.bn, v.mt);
				for (int cluster : {0, 1, 2, 3, 4, 8}) {
					if (cluster > s.k / 64 || cluster > 1 && tiles_of(t.p, v) * cluster > SMS) continue;
					double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, cluster, i % copies, stream, true); }, 7);
					printf(" %d: %.1f", cluster, us);
				}
				printf(" |");
			}
			printf("\n");
			fflush(stdout);
		}
}
