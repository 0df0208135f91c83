// Linear layers: Y[m][n] = Σ_k X[m][k] · W[n][k], and what each operation does with
// Y (its epilogue).
//
//   linear   Hidden[m] += Y[m]
//   gate_up  MLP[m] = silu(Y_gate[m]) ⊙ Y_up[m],  silu(g) = g / (1 + exp(−g))
//   qkv      see qkv.c
//   head     Logits[i] = Y[i], after the norm of the rows in LogitRows
//
// W is bfloat16, as it is or coded, or int8; X is float32, or was packed as bfloat16 or
// int8 by a phase of its own (activations.c), as the kernels of the code path take it.
// Sums are float32.
//
// Layout: X row-major, W in panels of 32 outputs (weight.h). A unit of work is a
// group of panels × a block of tokens that fits the second-level cache with room
// for a panel; blocks of tokens are outermost.
//
// Bytes moved: the weights once a block of tokens, 4·M·(K + N) of activations.
// FLOPs: 2·M·N·K.
//
// Numerics: every output is one chain of sums in ascending k from zero (the exceptions of
// a coded panel last), whatever M, the tile or the thread, and the rounding of X depends on
// its row alone, so results are equal bit for bit whatever the batch.
#include "gemm.h"

#include <math.h>
#include <string.h>

#include "deferred.h"

#ifdef __x86_64__
#include "avx2.h"
#include "avx512.h"
#endif

// TOKEN_BLOCK_BYTES of activations stay in a core's second-level cache.
#define TOKEN_BLOCK_BYTES (768 << 10)

// Weights of fewer than FEW groups of 4 panels a thread have groups of 2.
#define FEW 8

struct gemm {
	const struct pg_gemm_kernels *kernels;
	const struct pg_weight *w;
	int format;    // of the panels: the weight's, but of one that is kept
	int from;      // number of the first panel at data and codes
	const char *data;
	int64_t apart; // bytes from a panel to the next
	const struct pg_codes *codes;
	const char *x; // rows as the kernels take them
	int64_t ldx;   // bytes from one to the next
	int rows;      // tokens
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

#ifdef __x86_64__
static PG_AVX2 void gate_up_row_avx2(const float *tile, float *y, int n) {
	float out[16];
	for (int c = 0; c < 16; c += 8) {
		__m256 g = _mm256_load_ps(tile + c), u = _mm256_load_ps(tile + 16 + c);
		__m256 e = pg_exp256(_mm256_sub_ps(_mm256_setzero_ps(), g));
		_mm256_storeu_ps(out + c, _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1), e)), u));
	}
	memcpy(y, out, n * sizeof *y);
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
	if (d->isa >= PG_ISA_AVX512) row = gate_up_row_avx512;
	else if (d->isa >= PG_ISA_AVX2) row = gate_up_row_avx2;
#endif
	for (int m = 0; m < rows; m++) row(tile + m * PG_COLUMNS, d->mlp + (row0 + m) * ld + panel * 16, n);
}

const struct pg_gemm_kernels *pg_gemm_kernels_of(const struct pg_device *d, int format) {
#ifdef __x86_64__
	if (format == PG_INT8) {
		if (d->vnni) return &pg_gemm_int8_vnni;
		if (d->isa >= PG_ISA_AVX2) return &pg_gemm_int8_avx2;
		return &pg_gemm_int8_scalar;
	}
	if (format == PG_BF16_CODED)
		return d->isa == PG_ISA_AVX512BF16 ? &pg_gemm_avx512bf16_coded : &pg_gemm_avx512_coded;
	switch (d->isa) {
	case PG_ISA_AVX512BF16: return &pg_gemm_avx512bf16;
	case PG_ISA_AVX512: return &pg_gemm_avx512;
	case PG_ISA_AVX2: return &pg_gemm_avx2;
	case PG_ISA_SCALAR: break;
	}
#endif
	(void)d;
	return format == PG_INT8 ? &pg_gemm_int8_scalar : &pg_gemm_scalar;
}

const float *pg_input(const struct pg_device *d, const struct pg_step *s, const struct pg_op *op, int *count) {
	*count = op->kind == PG_HEAD ? s->num_logits : s->num_tokens;
	switch (op->kind) {
	case PG_HEAD: return d->head_in;
	case PG_LINEAR: return op->src == PG_SRC_MLP ? d->mlp : d->attn;
	default: return d->normed;
	}
}

static pg_epilogue_fn epilogue_of(const struct pg_op *op) {
	switch (op->kind) {
	case PG_QKV: return pg_qkv_epilogue;
	case PG_GATE_UP: return gate_up_epilogue;
	case PG_HEAD: return head_epilogue;
	default: return linear_epilogue;
	}
}

static struct gemm gemm_of(const struct pg_device *d, const struct pg_step *s, const struct pg_op *op) {
	struct gemm g = {.w = op->w, .format = op->w->format, .data = op->w->data, .apart = pg_panel_bytes(op->w), .codes = op->w->codes, .kernels = pg_gemm_kernels_of(d, op->w->format), .epilogue = epilogue_of(op)};
	const float *x = pg_input(d, s, op, &g.rows);
	int mr = g.kernels->max_rows;
	if (g.kernels->format == PG_ROWS_F32) {
		g.x = (const char *)x;
		g.ldx = pg_stride(op->w->cols) * 4;
	} else {
		g.x = d->packed;
		g.ldx = pg_packed_stride(g.kernels->format, op->w->cols);
	}
	g.block = (int)(TOKEN_BLOCK_BYTES / g.ldx) / mr * mr;
	if (g.block < mr) g.block = mr;
	// Each block of tokens would pack anew what is not packed.
	if (g.w->ready < g.w->panels && g.block < g.rows) g.block = g.rows;
	if (g.rows > 0) g.block = div_up(g.rows, div_up(g.rows, g.block)); // even blocks
	g.group = g.w->panels >= 4 * FEW * d->threads ? 4 : 2;
	g.groups = div_up(g.w->panels, g.group);
	return g;
}

// add_exceptions adds the products of what a coded panel's steps lack.
static void add_exceptions(const struct gemm *g, float *tile, int row0, int rows, int panel) {
	const struct pg_codes *codes = g->codes + panel - g->from;
	for (int i = 0; i < codes->num_exceptions; i++) {
		const struct pg_exception *e = codes->exceptions + i;
		for (int m = 0; m < rows; m++) {
			const char *x = g->x + (row0 + m) * g->ldx;
			float value = g->kernels->format == PG_ROWS_F32 ? ((const float *)x)[e->k] : pg_from_bf16(((const uint16_t *)x)[e->k]);
			tile[m * PG_COLUMNS + e->column] += value * e->value;
		}
	}
}

// finish_tile hands a panel's sums on.
static void finish_tile(const struct pg_device *d, struct pg_step *s, const struct pg_op *op, const struct gemm *g,
                        float *tile, int row0, int rows, int panel) {
	if (g->format == PG_BF16_CODED) add_exceptions(g, tile, row0, rows, panel);
	if (g->format == PG_INT8) {
		const float *scales = g->w->scales + panel * PG_COLUMNS;
		for (int m = 0; m < rows; m++)
			for (int c = 0; c < PG_COLUMNS; c++) tile[m * PG_COLUMNS + c] *= scales[c];
	}
	g->epilogue(d, s, op, tile, row0, rows, panel);
}

// codes_of is what a panel's kernel wants beside its steps. What is wanted after it, its
// exceptions and the codes of the next, lies outside the streams and is asked for here:
// waiting for both would take a tenth of the panel's time.
static const struct pg_codes *codes_of(const struct gemm *g, int panel) {
	if (g->format != PG_BF16_CODED) return NULL;
	const struct pg_codes *codes = g->codes + panel - g->from;
	__builtin_prefetch(codes + 1);
	__builtin_prefetch(codes->exceptions);
	return codes;
}

// run_panel multiplies tokens row0 … row0+rows−1, in several tiles, with a panel,
// which stays in the cache meanwhile. Each tile fetches its share of the next panel
// (more), so that reading memory and computing overlap.
static void run_panel(const struct pg_device *d, struct pg_step *s, const struct pg_op *op, const struct gemm *g,
                      int row0, int rows, int panel, bool more) {
	_Alignas(64) float out[PG_MR * PG_COLUMNS];
	int tiles = div_up(rows, g->kernels->max_rows);
	int64_t bytes = g->apart;
	// One round of a kernel's loop is a step, or a pair of coded ones; a tile fetches `share` bytes a round.
	int round = g->format == PG_BF16_CODED ? PG_PAIR_BYTES : PG_STEP_BYTES, share = div_up(round / 64, tiles) * 64;
	struct pg_tile tile = {
		.ldx = g->ldx, .w = g->data + (panel - g->from) * bytes, .codes = {codes_of(g, panel)}, .steps = g->w->steps, .out = out,
	};
	for (int t = 0; t < tiles; t++) {
		int m = (int)((int64_t)rows * t / tiles), mr = (int)((int64_t)rows * (t + 1) / tiles) - m;
		int64_t done = t * (bytes / round) * share;
		int left = round - t * share;
		tile.x = g->x + (row0 + m) * g->ldx;
		tile.ahead = tile.w + bytes + done;
		tile.step = !more || left <= 0 ? 0 : left < share ? left : share;
		g->kernels->panels(mr, 1)(&tile);
		finish_tile(d, s, op, g, out, row0 + m, mr, panel);
	}
}

// run_few multiplies rows tokens, one tile, with n panels: np streams, each
// walking its own n/np panels, one after another in memory, so that prefetching
// ahead never leaves the stream.
static void run_few(const struct pg_device *d, struct pg_step *s, const struct pg_op *op, const struct gemm *g,
                    int row0, int rows, int panel, int n) {
	_Alignas(64) float out[2 * PG_MR * PG_COLUMNS];
	int64_t bytes = g->apart;
	for (int np = 2; np > 0 && n > 0; np /= 2) {
		pg_panel_fn fn = g->kernels->panels(rows, np);
		if (!fn) continue;
		int each = n / np;
		for (int i = 0; i < each; i++) {
			fn(&(struct pg_tile){
				.x = g->x + row0 * g->ldx, .ldx = g->ldx, .w = g->data + (panel - g->from + i) * bytes, .stride = each * bytes,
				.codes = {codes_of(g, panel + i), np > 1 ? codes_of(g, panel + i + each) : NULL}, .steps = g->w->steps, .out = out,
			});
			for (int p = 0; p < np; p++)
				finish_tile(d, s, op, g, out + p * PG_MR * PG_COLUMNS, row0, rows, panel + i + p * each);
		}
		panel += each * np;
		n -= each * np;
	}
}

// run_alike multiplies tokens row0 … row0+rows−1 with n panels from panel on, all in g's format.
static void run_alike(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                      const struct gemm *g, int row0, int rows, int panel, int n) {
	if (rows <= g->kernels->max_rows) {
		run_few(d, s, op, g, row0, rows, panel, n);
		return;
	}
	for (int p = panel; p < panel + n; p++) run_panel(d, s, op, g, row0, rows, p, p + 1 < panel + n);
}

// run_some does so where some of the panels may be kept as they are.
static void run_some(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                     const struct gemm *g, int row0, int rows, int panel, int n) {
	const struct pg_codes *codes = g->codes - g->from;
	for (int end = panel + n, next; panel < end; panel = next) {
		for (next = panel; next < end && !codes[next].kept; next++) {}
		if (next > panel) {
			run_alike(d, s, op, g, row0, rows, panel, next - panel);
			continue;
		}
		struct gemm kept = *g;
		kept.format = PG_BF16;
		kept.kernels = pg_gemm_kernels_of(d, kept.format);
		kept.data = codes[panel].kept;
		kept.apart = pg_kept_bytes(g->w);
		kept.from = panel;
		run_panel(d, s, op, &kept, row0, rows, panel, false);
		next = panel + 1;
	}
}

// run_block does so where some are packed, and some are not yet.
static void run_block(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                      const struct gemm *g, int row0, int rows, int panel, int n, int worker) {
	int end = panel + n, ready = g->w->ready < end ? g->w->ready : end;
	if (panel < ready) {
		(g->w->num_kept > 0 ? run_some : run_alike)(d, s, op, g, row0, rows, panel, ready - panel);
		panel = ready;
	}
	for (; panel < end; panel += n) {
		struct pg_held_panels held;
		struct gemm of = *g;
		n = end - panel < PG_HELD ? end - panel : PG_HELD;
		pg_hold(d, g->w, &held, panel, n, worker);
		of.from = panel;
		of.data = held.data;
		of.apart = held.apart;
		of.codes = held.codes;
		run_some(d, s, op, &of, row0, rows, panel, n);
		pg_hold_end(&held);
	}
}

static void gemm_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	struct gemm g = gemm_of(d, s, op);
	while (count > 0) {
		int b = first / g.groups, at = first % g.groups;
		int n = g.groups - at < count ? g.groups - at : count;
		int row0 = b * g.block, rows = g.rows - row0 < g.block ? g.rows - row0 : g.block;
		int panel = at * g.group, end = panel + n * g.group;
		if (end > g.w->panels) end = g.w->panels;
		run_block(d, s, op, &g, row0, rows, panel, end - panel, worker);
		first += n;
		count -= n;
	}
}

void pg_gemm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	struct gemm g = gemm_of(d, s, op);
	int blocks = g.rows > 0 ? div_up(g.rows, g.block) : 0;
	pg_pack_rows_plan(d, s, op, g.kernels->format, g.rows);
	pg_push(s, op, gemm_phase, blocks * g.groups, 16);
}

void pg_linear_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) { pg_gemm_plan(d, s, op); }
void pg_gate_up_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) { pg_gemm_plan(d, s, op); }

void pg_head_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	pg_head_norm_plan(d, s, op);
	pg_gemm_plan(d, s, op);
}
