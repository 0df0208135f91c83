// The reference of pg_panel_fn in plain C, float32 rows. (Baseline x86-64 has no
// fused multiply-add; elsewhere the compiler may contract, equally for every
// token.)
#include "gemm.h"

static void token(const float *x, const uint32_t *w, int steps, float *out) {
	float sum[PG_COLUMNS] = {0};
	for (int i = 0; i < steps; i++, w += PG_COLUMNS, x += 2) {
		for (int c = 0; c < PG_COLUMNS; c++) { // k in the low half: little-endian
			union { uint32_t u; float f; } first = {w[c] << 16}, second = {w[c] & 0xFFFF0000u};
			sum[c] += x[0] * first.f;
			sum[c] += x[1] * second.f;
		}
	}
	for (int c = 0; c < PG_COLUMNS; c++) out[c] = sum[c];
}

#define TILE(MR)                                                                                     \
	static void tile_##MR(const struct pg_tile *t) {                                                 \
		for (int m = 0; m < MR; m++)                                                                 \
			token((const float *)(t->x + m * t->ldx), (const uint32_t *)t->w, t->steps, t->out + m * PG_COLUMNS); \
	}
TILE(1) TILE(2) TILE(3) TILE(4)

static pg_panel_fn panels(int mr, int np) {
	static const pg_panel_fn fns[] = {tile_1, tile_2, tile_3, tile_4};
	return np == 1 && mr <= 4 ? fns[mr - 1] : NULL;
}

const struct pg_gemm_kernels pg_gemm_scalar = {PG_ROWS_F32, 4, panels};
