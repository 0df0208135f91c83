// Checks and times gemm_skinny.cu: every variant, cut and uncut, and by size of cluster.
#include "../gemm_skinny.cu"
#include "gemm_case.cuh"

using namespace bench;

namespace {

struct Variant {
	int bn, mt;
	Kernels<GemmParams> kernels; // none: in clusters alone
	size_t shared;
	Kernels<GemmParams> clusters;
	int chunk() const { return 4 * 2048 / bn; }
};

template <int BN, int MT, int STAGES> constexpr size_t shared_bytes() { return WARPS * Skinny<BN, MT, STAGES>::RING; }

const Variant variants[] = {
	{16, 8, KERNELS_OF(gemm_skinny_16_8), shared_bytes<16, 8, 4>(), KERNELS_OF(gemm_skinny_16_8_clusters)},
	{32, 8, KERNELS_OF(gemm_skinny_32_8), shared_bytes<32, 8, 5>(), KERNELS_OF(gemm_skinny_32_8_clusters)},
	{32, 16, KERNELS_OF(gemm_skinny_32_16), shared_bytes<32, 16, 5>(), KERNELS_OF(gemm_skinny_32_16_clusters)},
	{64, 16, KERNELS_OF(gemm_skinny_64_16), shared_bytes<64, 16, 5>()},
	{32, 32, {}, 0, KERNELS_OF(gemm_skinny_32_32_clusters)},
	{64, 32, KERNELS_OF(gemm_skinny_64_32), shared_bytes<64, 32, 4>()},
	{64, 64, KERNELS_OF(gemm_skinny_64_64), shared_bytes<64, 64, 3>()},
};

constexpr int SLOTS = 264, SHARED = 227 << 10;

// run_clusters launches the variant on copy c with a cluster a tile, its ring of at most so many
// stages. It is false where there is no such way.
bool run_clusters(Projection &t, const Variant &v, int cluster, int stages, int c, cudaStream_t stream, bool pdl) {
	GemmParams p = t.p;
	int runs = (p.k + v.chunk() / 4 - 1) / (v.chunk() / 4), most = ((runs + cluster - 1) / cluster + 3) / 4;
	int head = 128 + v.bn / 8 * (v.mt + 8) * 32, stage = 4 * (WEIGHT_BYTES + v.mt * 4096 / v.bn);
	if (p.m > v.mt || !v.clusters[t.kind] || cluster > runs) return false;
	p.tiles = (p.n + v.bn - 1) / v.bn, p.per = 0;
	int room = p.tiles * cluster * 100 > 85 * SLOTS / 2 ? (SHARED + 1024) / 2 - 1024 : SHARED; // as gemm_skinny.go has it
	stages = std::min({stages, most, (room - head) / stage});
	p.w += c * t.weight_elems;
	p.partials = nullptr, p.counters = nullptr;
	launch(v.clusters[t.kind], dim3(p.tiles * cluster), 128, head + stages * stage, p, stream, pdl, cluster);
	return true;
}

// run launches the variant on copy c; the line is dealt out to at most `slots`
// CTAs, in whole tiles if whole.
void run(Projection &t, const Variant &v, int slots, bool whole, int c, cudaStream_t stream, bool pdl) {
	GemmParams p = t.p;
	int chunks = (p.k + v.chunk() - 1) / v.chunk();
	p.tiles = (p.n + v.bn - 1) / v.bn;
	p.per = whole ? (p.tiles + slots - 1) / slots * chunks : (p.tiles * chunks + slots - 1) / slots;
	p.w += c * t.weight_elems;
	launch(v.kernels[t.kind], dim3((p.tiles * chunks + p.per - 1) / p.per), 128, v.shared, p, stream, pdl);
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants) {
		if (m > v.mt) continue;
		t.room((size_t)2 * SLOTS * v.bn * v.mt, (n + 15) / 16);
		for (int slots : v.kernels[kind] ? std::vector<int>{SLOTS, 37, 5} : std::vector<int>{})
			for (bool whole : {true, false})
				for (int again = 0; again < 2; again++) { // the counters must be back at zero
					t.poison();
					run(t, v, slots, whole, 0, 0, again);
					t.check("skinny " + std::to_string(v.bn) + "x" + std::to_string(v.mt) + (whole ? " whole " : " cut ") + std::to_string(slots) + " " + t.name());
				}
		if (v.mt > 16 && m * 4 <= v.mt) continue; // far from what they are for
		for (int cluster : {2, 3, 4, 5, 6, 7, 8})
			for (int stages : {1, 2, 16})
				for (int again = 0; again < 2; again++) {
					t.poison();
					if (!run_clusters(t, v, cluster, stages, 0, 0, again)) continue;
					t.check("skinny " + std::to_string(v.bn) + "x" + std::to_string(v.mt) + " cluster " + std::to_string(cluster) + " stages " + std::to_string(stages) + " " + t.name());
				}
	}
}

// check_normed is of one token whose norm the kernel makes.
void check_normed(int n, int k, int kind, int head_dim) {
	Projection t(1, n, k, kind, head_dim, 1);
	Memory<float> hidden(k), norm(k);
	fill(hidden.data, k, 2), fill(norm.data, k, 1.5f);
	std::vector<float> h = hidden.download(), g = norm.download();
	double sum = 0;
	for (float x : h) sum += (double)x * x;
	std::vector<half> row;
	for (int i = 0; i < k; i++) row.push_back(__float2half((float)(h[i] / std::sqrt(sum / k + 1e-6) * g[i])));
	CHECK(cudaMemcpy(t.x.data, row.data(), k * sizeof(half), cudaMemcpyHostToDevice));
	t.reference();
	const int most = k <= 1024 ? 1024 : k <= 2048 ? 2048 : 4096;
	for (int bn : {16, 32}) {
#define OF_KIND(NAME) (kind == QKV ? NAME##_qkv : NAME##_swiglu)
#define OF_WIDTH(BN, DEAL) (most == 1024 ? OF_KIND(gemm_skinny_##BN##_8_normed_1024##DEAL) : most == 2048 ? OF_KIND(gemm_skinny_##BN##_8_normed_2048##DEAL) : OF_KIND(gemm_skinny_##BN##_8_normed_4096##DEAL))
#define NORMED_KERNEL(DEAL) (bn == 16 ? OF_WIDTH(16, DEAL) : OF_WIDTH(32, DEAL))
		int tiles = (n + bn - 1) / bn, run = 2048 / bn, chunks = (k + 4 * run - 1) / (4 * run), runs = (k + run - 1) / run, row_bytes = runs * run * 2, stage = 4 * WEIGHT_BYTES;
		t.room((size_t)2 * SLOTS * bn * 8, (n + 15) / 16);
		auto check = [&](const std::string &how, void (*kernel)(NormedParams), int ctas, int per, int shared, int cluster) {
			for (int again = 0; again < 2; again++) {
				NormedParams p{t.p, hidden.data, norm.data, 1e-6f, 0};
				p.g.x = nullptr, p.g.tiles = tiles, p.g.per = per;
				t.poison();
				launch(kernel, dim3(ctas), 128, shared, p, 0, again, cluster);
				t.check("skinny normed " + std::to_string(bn) + how + " " + t.name());
			}
		};
		for (int slots : {SLOTS, 37, 5})
			for (bool whole : {true, false}) {
				int per = whole ? (tiles + slots - 1) / slots * chunks : (tiles * chunks + slots - 1) / slots;
				check(whole ? " whole" : " cut", NORMED_KERNEL(), (tiles * chunks + per - 1) / per, per, row_bytes + (bn == 16 ? 4 : 5) * stage, 1);
			}
		for (int cluster : {2, 3, 4, 6, 8})
			for (int stages : {1, 2, 16}) {
				int head = 128 + bn / 8 * (8 + 8) * 32, longest = ((runs + cluster - 1) / cluster + 3) / 4;
				if (cluster <= runs) check(" cluster " + std::to_string(cluster), NORMED_KERNEL(_clusters), tiles * cluster, 0, head + row_bytes + std::min(stages, longest) * stage, cluster);
			}
#undef NORMED_KERNEL
#undef OF_WIDTH
#undef OF_KIND
	}
}

} // namespace

void bench_skinny(bool check, bool times) {
	if (check) {
		for (int m : {2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15}) check_case(m, 24 * m + 8, 64 * (2 * m + 1), m % 2 ? RESIDUAL : STORE, 0);
		for (int m : {17, 24, 31}) check_case(m, 8 * m + 8, 64 * (m + 2), m % 2 ? RESIDUAL : STORE, 0);
		for (int m : {1, 3, 8, 13, 16, 29, 32, 33, 64}) {
			check_case(m, 896, 4864, RESIDUAL, 0);
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 2048, 1536, QKV, 128);
			check_case(m, 1208, 2048, SWIGLU, 0);
		}
		for (int k : {64, 192, 896, 960, 1536, 3584, 4096}) {
			check_normed(1152, k, QKV, 64);
			check_normed(9608, k, SWIGLU, 0);
		}
		printf("skinny: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("skinny: µs (%% of bytes / 4.60 TB/s); p = programmatic dependent launch\n");
	for (const Shape &s : shapes) {
		int copies = rotation(s.n, s.k), n = std::max(copies, 8);
		for (int m : tokens_or({1, 8, 16, 32, 64}, 64)) {
			if (!chosen(s)) continue;
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.poison();
			double floor = 2.0 * s.n * s.k / READ_BYTES * 1e6;
			printf("%-12s m %-2d floor %6.1f |", s.name, m, floor);
			for (const Variant &v : variants) {
				if (m > v.mt || v.mt > 8 && m * 4 <= v.mt) continue;
				t.room((size_t)2 * SLOTS * v.bn * v.mt, (s.n + 15) / 16);
				for (bool whole : v.kernels[s.kind] ? std::vector<bool>{true, false} : std::vector<bool>{}) {
					double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, SLOTS, whole, i % copies, stream, false); }, 7);
					double pdl = time(n, [&](int i, cudaStream_t stream) { run(t, v, SLOTS, whole, i % copies, stream, true); }, 7);
					printf(" %dx%d%s %.1f (%.0f%%) p %.1f (%.0f%%) |", v.bn, v.mt, whole ? "w" : "c", us, 100 * floor / us, pdl, 100 * floor / pdl);
				}
				for (int cluster : {2, 3, 4, 6, 8}) {
					int ctas = (s.n + v.bn - 1) / v.bn * cluster;
					if (ctas * 10 > 11 * SLOTS || !run_clusters(t, v, cluster, 16, 0, 0, true)) continue;
					double pdl = time(n, [&](int i, cudaStream_t stream) { run_clusters(t, v, cluster, 16, i % copies, stream, true); }, 7);
					printf(" %dx%d cluster %d p %.1f (%.0f%%) |", v.bn, v.mt, cluster, pdl, 100 * floor / pdl);
				}
			}
			printf("\n");
			fflush(stdout);
		}
	}
}
