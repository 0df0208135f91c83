// Checks and times gemm_wide.cu by size of cluster and panels of a step.
#include "../gemm_wide.cu"
#include "gemm_case.cuh"
#include "tensor_map.cuh"

using namespace bench;

namespace {

constexpr int GATED = 18 << 10; // gemm_wide.go: wideGated

struct Variant {
	int bn, mt;
	Kernels<StreamParams> kernels, tiles;
	size_t shared(int m, int box, int panels, int stages, int cluster) const {
		int panel = box * 128, size = panels * (panel + bn * 128), tile = std::max(box * (bn % 16 ? bn : bn + 8) * 4, GATED);
		int sums = cluster > 1 ? (std::min(m, mt) + cluster - 1) / cluster * cluster * bn * 4 : 0;
		return 1024 + std::max({stages * size, stages * size - panels * bn * 128 - panel + 8192, tile}) + 16 * stages + 32 + 4 * mt + sums;
	}
};

#define VARIANT(BN, MT) {BN, MT, KERNELS_OF(gemm_wide_##BN##_##MT), KERNELS_OF(gemm_wide_##BN##_##MT##_tiles)}
#define VARIANTS(BN) VARIANT(BN, 64), VARIANT(BN, 128)
const Variant variants[] = {VARIANT(32, 64), VARIANTS(56), VARIANTS(64), VARIANTS(72), VARIANT(80, 64), VARIANTS(112), VARIANT(120, 128), VARIANTS(136), VARIANT(288, 64)};

constexpr int SMS = 132, SHARED = 227 << 10;

int tiles_of(const GemmParams &p, const Variant &v) { return (p.n + v.bn - 1) / v.bn * ((p.m + v.mt - 1) / v.mt); }

int box_of(int m, const Variant &v) { return v.mt == 128 ? 128 : m <= 16 ? 16 : m <= 32 ? 32 : 64; }

// run launches with clusters of that size, 1: one tile a CTA, 0: several. It is false where
// the deal is none.
bool run(Projection &t, const Variant &v, int cluster, int panels, int c, cudaStream_t stream, bool pdl) {
	StreamParams p{};
	p.g = t.p;
	p.panels = panels, p.box = box_of(p.g.m, v);
	int steps = (p.g.k / 64 + panels - 1) / panels, tiles = tiles_of(p.g, v), grid = tiles * std::max(cluster, 1), most = (steps + std::max(cluster, 1) - 1) / std::max(cluster, 1);
	if (cluster > steps) return false;
	p.g.tiles = (p.g.n + v.bn - 1) / v.bn;
	if (cluster == 0) {
		int rounds = (tiles + SMS - 1) / SMS;
		grid = (tiles + rounds - 1) / rounds, p.g.per = 1, most *= rounds;
	}
	for (p.stages = std::min(most, 32); p.stages > 0 && v.shared(p.g.m, p.box, panels, p.stages, cluster) > SHARED;) p.stages--;
	if (p.stages < std::min(2, most)) return false;
	p.x = tokens_map(t.p.x, up(t.p.m, 256), t.p.ldx, p.box, panels);
	p.w = weights_map(t.p.w + c * t.weight_elems, up(t.p.n, 128), t.p.k, v.bn > 256 ? v.bn / 2 : v.bn, panels);
	launch((cluster == 0 ? v.tiles : v.kernels)[t.kind], dim3(grid), 320, v.shared(p.g.m, p.box, panels, p.stages, cluster), p, stream, pdl, std::max(cluster, 1));
	return true;
}

void check_case(int m, int n, int k, int kind, int head_dim, int largest = 8) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	t.room(1, 1);
	int runs = 0;
	for (const Variant &v : variants) {
		if (v.mt * 8 < m) continue; // gemm_wide.go
		for (int cluster : {0, 1, 2, 3, 4, 8})
			for (int panels : {1, 2, 4}) {
				if (cluster > largest || panels > largest) continue;
				t.poison();
				if (!run(t, v, cluster, panels, 0, 0, panels != 2)) continue;
				runs++;
				t.check("wide " + std::to_string(v.bn) + "x" + std::to_string(v.mt) + " cluster " + std::to_string(cluster) + " panels " + std::to_string(panels) + " " + t.name());
			}
	}
	if (runs == 0) failures++, printf("wide: no tile takes %s\n", t.name().c_str());
}

// fits says whether all of a deal's CTAs are under way at a time.
bool fits(int tiles, int cluster) {
	const int most[] = {0, SMS, 64, 38, 30, 0, 0, 0, 14};
	return cluster == 0 || tiles <= most[cluster];
}

} // namespace

void bench_wide(bool check, bool times) {
	if (check) {
		for (int m : {1, 16, 17, 29, 33, 64, 65, 100, 128, 200, 450}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 1208, 2048, SWIGLU, 0);
			if (m == 16 || m > 60 && m != 65) check_case(m, 150 * 128, 256, STORE, 0, 1);
		}
		printf("wide: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("wide: µs with dependent launch, the fastest of gemm_stream.cu, then by tile: size of cluster, panels of a step\n");
	for (const Shape &s : shapes)
		for (int m : tokens_or({16, 32, 64, 128}, 512)) {
			if (!chosen(s)) continue;
			int copies = rotation(s.n, s.k), n = std::max(copies, 8);
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.room((size_t)SMS * 256 * 128, 1 << 14);
			t.poison();
			std::string name;
			double best = fastest_stream(t, copies, name);
			printf("%-12s m %-3d floor %6.1f | stream %.1f (%s) |", s.name, m, 2.0 * s.n * s.k / READ_BYTES * 1e6, best, name.c_str());
			for (const Variant &v : variants) {
				if (v.mt == 128 && m <= 64) continue;
				int tiles = tiles_of(t.p, v);
				bool any = false;
				for (int cluster : {0, 1, 2, 3, 4, 8}) {
					if (cluster == 0 && (tiles <= SMS || v.bn < 112) || !fits(tiles, cluster)) continue;
					if (tiles * std::max(cluster, 1) < 60) continue; // others have more CTAs
					for (int panels : {1, 2, 4}) {
						if (panels > 1 && panels * (box_of(m, v) + v.bn) * 128 > 48 << 10 || !run(t, v, cluster, panels, 0, 0, true)) continue;
						double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, cluster, panels, i % copies, stream, true); }, 7);
						if (!any) printf(" %dx%d", v.bn, v.mt);
						any = true;
						printf(" %d,%d: %.1f", cluster, panels, us);
					}
				}
				if (any) printf(" |");
			}
			printf("\n");
			fflush(stdout);
		}
}
