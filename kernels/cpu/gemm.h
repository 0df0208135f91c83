// Matrix products on packed weights (weight.h). See gemm.c.
#pragma once

#include "weight.h"

// The most tokens of a register tile.
#define PG_MR 12

// A register tile: tokens m = 0…mr−1 of np panels.
struct pg_tile {
	const char *x; // first row of activations in the kernels' format
	int64_t ldx;   // bytes from one to the next
	const char *w; // first panel
	int64_t stride; // bytes from one panel to the next
	const struct pg_codes *codes[2]; // of the panels, if they are coded
	int steps;     // of a panel
	// Memory that is read next: with np = 1, `step` bytes from ahead on are fetched
	// into the second-level cache each step (coded: pair of steps), a multiple of 64.
	const char *ahead;
	int step;
	float *out; // [np][PG_MR][a0…a15 b0…b15]
};

// pg_panel_fn computes a tile: each output is one chain of sums in ascending k
// from zero, whatever mr and np.
typedef void (*pg_panel_fn)(const struct pg_tile *t);

// The kernels of a code path and a format of weights.
struct pg_gemm_kernels {
	enum pg_rows_format format;
	int max_rows; // of a tile of one panel; there is a kernel for each 1…max_rows
	// panels returns the kernel of a tile of 1 or 2 panels; NULL: there is none.
	pg_panel_fn (*panels)(int mr, int np);
};

extern const struct pg_gemm_kernels pg_gemm_scalar, pg_gemm_int8_scalar;
#ifdef __x86_64__
extern const struct pg_gemm_kernels pg_gemm_avx2, pg_gemm_avx512, pg_gemm_avx512bf16;
extern const struct pg_gemm_kernels pg_gemm_avx512_coded, pg_gemm_avx512bf16_coded;
extern const struct pg_gemm_kernels pg_gemm_int8_avx2, pg_gemm_int8_vnni;
#endif

// pg_gemm_kernels_of chooses by the device and the format of the panels (enum pg_format).
const struct pg_gemm_kernels *pg_gemm_kernels_of(const struct pg_device *d, int format);

// pg_pack_rows_plan pushes the phase that brings the n rows of op's input into
// d->packed; none if they are there or the format is float32. activations.c.
void pg_pack_rows_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       enum pg_rows_format format, int n);
// pg_pack_row packs row t of k activations as the device's linear weights want it.
void pg_pack_row(const struct pg_device *d, int t, const float *x, int k);

// pg_input says which activation an operation multiplies: its rows and, in
// *count, how many there are.
const float *pg_input(const struct pg_device *d, const struct pg_step *s, const struct pg_op *op, int *count);

// pg_epilogue_fn consumes a tile: tokens row0 … row0+rows−1, one panel,
// tile[rows][32].
typedef void (*pg_epilogue_fn)(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                               const float *tile, int row0, int rows, int panel);

// pg_gemm_plan pushes the product of op with the epilogue of its kind.
void pg_gemm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);

// pg_qkv_epilogue is in qkv.c: bias, RoPE, and the write to Query or the pool.
void pg_qkv_epilogue(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                     const float *tile, int row0, int rows, int panel);
