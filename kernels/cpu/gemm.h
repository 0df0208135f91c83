// Matrix products on packed weights (weight.h). See gemm.c.
#pragma once

#include "weight.h"

// The most tokens of a register tile.
#define PG_MR 12

// pg_panel_fn computes, for tokens m = 0…mr−1 and np panels that lie stride
// half-words apart, the sums over k of x[m·ldx + k] · w[k][column], each one
// chain of fused multiply-adds in ascending k from zero, into
// out[panel][m][a0…a15 b0…b15] (panel stride PG_MR·32). With np = 1 it fetches
// the memory from ahead on into the second-level cache, step bytes each k.
typedef void (*pg_panel_fn)(const float *x, int64_t ldx, const uint16_t *w, int64_t stride, int k,
                            const char *ahead, int step, float *out);

// pg_panels_avx512(mr, np) is the kernel of that tile; NULL: there is none.
pg_panel_fn pg_panels_avx512(int mr, int np);

// pg_epilogue_fn consumes a tile: tokens row0 … row0+rows−1, one panel,
// tile[rows][32].
typedef void (*pg_epilogue_fn)(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                               const float *tile, int row0, int rows, int panel);

// pg_gemm_plan pushes the product of op with the epilogue of its kind.
void pg_gemm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);

// pg_qkv_epilogue is in qkv.c: bias, RoPE, and the write to Query or the pool.
void pg_qkv_epilogue(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                     const float *tile, int row0, int rows, int panel);
