// Checks and times attention_decode.cu.
#include "../attention_decode.cu"
#include "attention_case.cuh"

using namespace bench;

namespace {

// Way is a kernel for heads of so many dims: its tokens of a tile, warps, shared memory of rings, and
// CTAs a multiprocessor (attention_decode.go: decodeForm).
struct Way {
	const char *name;
	int head_dim, tile, warps, rings, each;
	void (*kernel)(DecodeParams), (*clusters)(DecodeParams);
};
template <class F> constexpr Way way(const char *name, int each, void (*kernel)(DecodeParams), void (*clusters)(DecodeParams)) {
	return {name, F::D, F::TILE, F::WARPS, F::RINGS, each, kernel, clusters};
}
const Way ways[] = {
	way<Form64>("64", 2, attention_decode_64, attention_decode_64_clusters),
	way<Form128Wide>("128 wide", 1, attention_decode_128_wide, attention_decode_128_wide_clusters),
	way<Form128>("128", 2, attention_decode_128, attention_decode_128_clusters),
};

// Decode is the kernel's memory for a batch, and its launches.
struct Decode {
	const Way &way;
	Pages &pages;
	int grid, cluster;
	Memory<int4> seqs, starts;
	Memory<uint32_t> partials;

	Decode(const Way &way, Pages &pages, int grid, int cluster = 1) : way(way), pages(pages), grid(grid), cluster(cluster), seqs(2048), starts(2 * grid), partials((size_t)(grid + FOLDED) * HEADS * (pages.head_dim + 2 * 16)) {
		partials.set(0), starts.set(0xFF);
	}
	DecodePlan where() { return {seqs.data, starts.data}; }
	void plan(cudaStream_t stream) {
		DecodePlanParams p{pages.batch, where(), pages.kv_heads, grid, cluster, way.tile};
		launch(attention_decode_plan, dim3(1), 1024, 4097 * 4, p, stream);
	}
	void run(cudaStream_t stream, int layer, bool pdl) {
		DecodeParams p{pages.query.data, pages.out.data, pages.kv, pages.tables.data, where(), partials.data, pages.ld,
		               layer, pages.kv_heads, pages.heads / pages.kv_heads, (float)(M_LOG2E / sqrt((double)pages.head_dim))};
		launch(cluster > 1 ? way.clusters : way.kernel, dim3(grid), way.warps * 32, way.rings + sizeof(Exchange<128>) + 128 /* attention_decode.go: decodeSpare */, p, stream, pdl, cluster);
	}
};

void check_case(int heads, int kv_heads, int d, int block, std::vector<Span> spans, int padding, const char *name) {
	Pages pages(heads, kv_heads, d, block, 2, spans, padding);
	pages.reference(0, pages.decodes);
	for (auto &way : ways)
		for (int grid : {264, 41, 40, 3, -2, -3, -4, -5, -7, -8}) { // less than 0: of clusters
			if (way.head_dim != d) continue;
			int cluster = std::max(1, -grid);
			if (cluster > 1) grid = cluster * 12 * way.each;
			Decode decode(way, pages, grid, cluster);
			for (int again = 0; again < 3; again++) {
				pages.out.set(0xFF);
				decode.plan(0);
				if (again > 0) decode.run(0, 0, again == 1); // another layer leaves other states in the same places
				decode.run(0, pages.layer, again > 0);
				CHECK(cudaDeviceSynchronize());
				std::string what = "decode " + std::string(name) + " " + std::to_string(heads) + "/" + std::to_string(kv_heads) + "/" + way.name + " block " + std::to_string(block) + " grid " + std::to_string(grid) + " clusters of " + std::to_string(cluster);
				compare(what, pages.out.download(), pages.want, 6e-3);
				auto left = decode.partials.download();
				compare(what + ", states left", left, std::vector<uint32_t>(left.size()), 0);
			}
		}
}

std::vector<Span> decodes(int n, int context) { return std::vector<Span>(n, Span{context, 1}); }

// of_any_length are decodes behind 200 to 2,167 tokens.
std::vector<Span> of_any_length(int n) {
	std::vector<Span> spans;
	srand(7);
	for (int i = 0; i < n; i++) spans.push_back({200 + rand() % 1968, 1});
	return spans;
}

} // namespace

void bench_decode(bool check, bool times) {
	const int geometries[][3] = {{28, 4, 128}, {14, 2, 64}, {12, 2, 128}, {9, 3, 64}, {8, 8, 128}, {8, 1, 64}};
	if (check) {
		for (auto &g : geometries)
			for (int block : {16, 32, 64}) {
				check_case(g[0], g[1], g[2], block, {{0, 1}, {14, 1}, {15, 1}, {16, 1}, {62, 1}, {63, 1}, {64, 1}, {130, 1}, {1000, 1}}, 0, "edges");
				if (block == 16)
					check_case(g[0], g[1], g[2], block, {{30, 1}, {31, 1}, {32, 1}, {158, 1}, {159, 1}, {160, 1}, {190, 1}, {191, 1}, {192, 1}, {319, 1}, {383, 1}}, 0, "edges of wide rounds");
				check_case(g[0], g[1], g[2], block, {{2600, 1}}, 0, "one long");
				check_case(g[0], g[1], g[2], block, decodes(45, 33), 19, "padded");
				std::vector<Span> alike; // units of which none is cut
				for (int i = 0; i < 40; i++) alike.push_back({900 + i % 7 * 9, 1});
				check_case(g[0], g[1], g[2], block, alike, 3, "alike");
				check_case(g[0], g[1], g[2], block, {{70, 1}, {5, 1}, {900, 1}, {10, 33}, {48, 16}}, 0, "mixed");
				check_case(g[0], g[1], g[2], block, {{800, 1}, {1100, 1}}, 3, "few, padded"); // some CTAs of a cluster of 8
				check_case(g[0], g[1], g[2], block, {{300, 1}, {200, 1}}, 0, "pairs");
			}
		printf("decode: checked, %d failures\n", failures);
	}
	if (!times) return;
	constexpr int ANY = -1; // context
	printf("decode: µs (%% of bytes / 4.60 TB/s), then in clusters of so many CTAs\n");
	const int clusters[][2] = {{8, 28}, {6, 37}, {4, 60}, {3, 77}, {2, 132}}; // attention_decode.go: decodeWays
	for (auto &g : geometries) {
		if (g[0] < 12) continue;
		for (int batch : {1, 8, 16, 32, 64, 128, 160, 256, 320, 512})
			for (int context : {128, 1183, 4095, 30000, ANY}) {
				auto spans = context == ANY ? of_any_length(batch) : decodes(batch, context);
				int64_t bytes = 0;
				for (auto &s : spans) bytes += (int64_t)(s.context + 1) * g[1] * g[2] * 4;
				if (bytes > 1200e6 || (context == 128 && batch > 32)) continue;
				int layers = std::max<int64_t>(2, std::min<int64_t>(28, 300e6 / bytes + 1));
				for (int block : {16, 64}) {
					if (block == 64 && context != 1183) continue;
					Pages pages(g[0], g[1], g[2], block, layers, spans, 0, true);
					double floor = bytes / READ_BYTES * 1e6;
					int n = std::max(8, layers);
					auto us = [&](Decode &d) {
						d.plan(0);
						return time(n, [&](int i, cudaStream_t s) { d.run(s, i % layers, true); }, 7);
					};
					std::string length = context == ANY ? "any" : std::to_string(context + 1);
					printf("%d/%d/%d block %d batch %-3d context %-5s floor %6.1f", g[0], g[1], g[2], block, batch, length.c_str(), floor);
					double plan = 0;
					for (auto &way : ways) {
						if (way.head_dim != g[2]) continue;
						Decode line(way, pages, 132 * way.each);
						double t = us(line);
						if (plan == 0) plan = time(20, [&](int, cudaStream_t s) { line.plan(s); }, 5), printf(" plan %.1f", plan);
						printf(" | %s: %.1f (%.0f%%)", way.name, t, 100 * floor / t);
						for (auto &c : clusters)
							if (batch * g[1] <= c[1] * way.each / 2) {
								Decode clustered(way, pages, c[0] * (c[1] * way.each / 2), c[0]);
								printf(" %d: %.1f", c[0], us(clustered));
							}
					}
					printf("\n");
					fflush(stdout);
				}
			}
	}
}
