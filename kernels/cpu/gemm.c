// Linear layers: Y[m][n] = Σ_k X[m][k] · W[n][k], float32 X, bfloat16 W, and what
// each operation does with Y (its epilogue).
//
//   linear   Hidden[m] += Y[m]
//   gate_up  MLP[m] = silu(Y_gate[m]) ⊙ Y_up[m],  silu(g) = g / (1 + exp(−g))
//   qkv      see qkv.c
//   head     Logits[i] = Y[i], after the norm of the rows in LogitRows
//
// Layout: X row-major with stride pg_stride(k), W in panels of 32 outputs
// (weight.h). A unit of work is a group of panels × a block of tokens that fits
// the second-level cache with room for a panel; blocks of tokens are outermost.
//
// Bytes moved: 2·N·K of weights once a block of tokens, 4·M·(K + N) of
// activations. FLOPs: 2·M·N·K.
//
// Numerics: every output is one chain of multiply-adds in ascending k from zero,
// whatever M, the tile or the thread, so results are equal bit for bit whatever
// the batch.
#include "gemm.h"

#include <math.h>

#ifdef __x86_64__
#include "avx512.h"
#endif

// TOKEN_BLOCK_BYTES of activations stay in a core's second-level cache.
#define TOKEN_BLOCK_BYTES (768 << 10)

// GROUP panels make a unit; wider weights than FEW groups a thread have groups
// of 4, so that one token reads 4 streams.
#define FEW 8

struct gemm {
	const float *x;
	const struct pg_weight *w;
	int rows, k;   // tokens; inner dimension
	int block;     // tokens of a block
	int group;     // panels of a unit
	int groups;    // units of a block
	pg_epilogue_fn epilogue;
};

static inline int div_up(int a, int b) { return (a + b - 1) / b; }

static void linear_epilogue(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                            const float *tile, int row0, int rows, int panel) {
	(void)s;
	int n = op->w->rows - panel * PG_COLUMNS;
	if (n > PG_COLUMNS) n = PG_COLUMNS;
	int64_t ld = pg_stride(d->shape.hidden);
	for (int m = 0; m < rows; m++) {
		float *y = d->hidden + (row0 + m) * ld + panel * PG_COLUMNS;
		for (int c = 0; c < n; c++) y[c] += tile[m * PG_COLUMNS + c];
	}
}

static void head_epilogue(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                          const float *tile, int row0, int rows, int panel) {
	(void)s;
	int n = op->w->rows - panel * PG_COLUMNS;
	if (n > PG_COLUMNS) n = PG_COLUMNS;
	int64_t ld = pg_stride(d->shape.vocab);
	for (int m = 0; m < rows; m++) {
		float *y = d->logits + (row0 + m) * ld + (int64_t)panel * PG_COLUMNS;
		for (int c = 0; c < n; c++) y[c] = tile[m * PG_COLUMNS + c];
	}
}

#ifdef __x86_64__
static PG_AVX512 void gate_up_row_avx512(const float *tile, float *y, int n) {
	__m512 g = _mm512_load_ps(tile), u = _mm512_load_ps(tile + 16), one = _mm512_set1_ps(1);
	__m512 e = pg_exp512(_mm512_sub_ps(_mm512_setzero_ps(), g));
	__m512 v = _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(one, e)), u);
	_mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), v);
}
#endif

static void gate_up_row(const float *tile, float *y, int n) {
	for (int c = 0; c < n; c++) y[c] = tile[c] / (1 + expf(-tile[c])) * tile[16 + c];
}

static void gate_up_epilogue(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                             const float *tile, int row0, int rows, int panel) {
	(void)s, (void)op;
	int n = d->shape.intermediate - panel * 16;
	if (n > 16) n = 16;
	int64_t ld = pg_stride(d->shape.intermediate);
	void (*row)(const float *, float *, int) = gate_up_row;
#ifdef __x86_64__
	if (d->isa == PG_ISA_AVX512) row = gate_up_row_avx512;
#endif
	for (int m = 0; m < rows; m++) row(tile + m * PG_COLUMNS, d->mlp + (row0 + m) * ld + panel * 16, n);
}

static struct gemm gemm_of(const struct pg_device *d, const struct pg_step *s, const struct pg_op *op) {
	struct gemm g = {.w = op->w, .rows = s->num_tokens, .k = op->w->cols};
	switch (op->kind) {
	case PG_QKV: g.x = d->normed, g.epilogue = pg_qkv_epilogue; break;
	case PG_GATE_UP: g.x = d->normed, g.epilogue = gate_up_epilogue; break;
	case PG_HEAD: g.x = d->head_in, g.epilogue = head_epilogue, g.rows = s->num_logits; break;
	default: g.x = op->src == PG_SRC_MLP ? d->mlp : d->attn, g.epilogue = linear_epilogue;
	}
	g.block = (int)(TOKEN_BLOCK_BYTES / (pg_stride(g.k) * 4)) / PG_MR * PG_MR;
	if (g.block < PG_MR) g.block = PG_MR;
	if (g.rows > 0) g.block = div_up(g.rows, div_up(g.rows, g.block)); // even blocks
	g.group = g.w->panels >= 4 * FEW * d->threads ? 4 : 2;
	g.groups = div_up(g.w->panels, g.group);
	return g;
}

// scalar_panel is the reference of pg_panel_fn for one token and panel. (Baseline
// x86-64 has no fused multiply-add; elsewhere the compiler may contract, equally
// for every token.)
static void scalar_panel(const float *x, const uint16_t *w, int k, float *out) {
	float sum[PG_COLUMNS] = {0};
	for (int i = 0; i < k; i++, w += PG_COLUMNS) {
		const uint32_t *line = (const uint32_t *)w; // a in the low half: little-endian
		float xi = x[i];
		for (int c = 0; c < 16; c++) {
			union { uint32_t u; float f; } a = {line[c] << 16}, b = {line[c] & 0xFFFF0000u};
			sum[c] += xi * a.f;
			sum[16 + c] += xi * b.f;
		}
	}
	for (int c = 0; c < PG_COLUMNS; c++) out[c] = sum[c];
}

static void panel_scalar(const float *x, int64_t ldx, const uint16_t *w, int mr, int k, float *out) {
	for (int m = 0; m < mr; m++) scalar_panel(x + m * ldx, w, k, out + m * PG_COLUMNS);
}

// run_block multiplies tokens row0 … row0+rows−1 with n panels from panel on.
static void run_block(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                      const struct gemm *g, int row0, int rows, int panel, int n) {
	_Alignas(64) float out[4 * PG_MR * PG_COLUMNS];
	int64_t ldx = pg_stride(g->k), size = (int64_t)g->k * PG_COLUMNS;
	int tiles = div_up(rows, PG_MR);
	if (d->isa == PG_ISA_SCALAR || tiles > 1) {
		// A panel stays in the cache while all tiles of tokens pass it.
		for (int p = panel; p < panel + n; p++) {
			for (int t = 0; t < tiles; t++) {
				int m = (int)((int64_t)rows * t / tiles), mr = (int)((int64_t)rows * (t + 1) / tiles) - m;
				const float *x = g->x + (row0 + m) * ldx;
#ifdef __x86_64__
				// Each tile fetches its share of the next panel, so that reading memory
				// and computing overlap.
				int step = p + 1 < panel + n ? div_up(64, tiles) : 0;
				const char *ahead = (const char *)(g->w->data + (p + (step > 0)) * size) + (int64_t)t * g->k * step;
				if (d->isa == PG_ISA_AVX512)
					pg_panels_avx512(mr, 1)(x, ldx, g->w->data + p * size, 0, g->k, ahead, step, out);
				else
#endif
					panel_scalar(x, ldx, g->w->data + p * size, mr, g->k, out);
				g->epilogue(d, s, op, out, row0 + m, mr, p);
			}
		}
		return;
	}
#ifdef __x86_64__
	// Few tokens: np streams, each walking its own n/np panels, one after another
	// in memory, so that prefetching ahead never leaves the stream.
	for (int np = 4; np > 0 && n > 0; np /= 2) {
		pg_panel_fn fn = pg_panels_avx512(rows, np);
		if (!fn) continue;
		int each = n / np;
		for (int i = 0; i < each; i++) {
			fn(g->x + row0 * ldx, ldx, g->w->data + (panel + i) * size, each * size, g->k, (const char *)g->x, 0, out);
			for (int p = 0; p < np; p++)
				g->epilogue(d, s, op, out + p * PG_MR * PG_COLUMNS, row0, rows, panel + i + p * each);
		}
		panel += each * np;
		n -= each * np;
	}
#endif
}

static void gemm_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)worker;
	struct gemm g = gemm_of(d, s, op);
	while (count > 0) {
		int b = first / g.groups, at = first % g.groups;
		int n = g.groups - at < count ? g.groups - at : count;
		int row0 = b * g.block, rows = g.rows - row0 < g.block ? g.rows - row0 : g.block;
		int panel = at * g.group, end = panel + n * g.group;
		if (end > g.w->panels) end = g.w->panels;
		run_block(d, s, op, &g, row0, rows, panel, end - panel);
		first += n;
		count -= n;
	}
}

void pg_gemm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	struct gemm g = gemm_of(d, s, op);
	int blocks = g.rows > 0 ? div_up(g.rows, g.block) : 0;
	pg_push(s, op, gemm_phase, blocks * g.groups, 16);
}

void pg_linear_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) { pg_gemm_plan(d, s, op); }
void pg_gate_up_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) { pg_gemm_plan(d, s, op); }

void pg_head_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	pg_head_norm_plan(d, s, op);
	pg_gemm_plan(d, s, op);
}
