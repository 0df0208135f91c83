// The device's memory: what Go calls. See device.c and kv.c.
#pragma once

#include "pool.h"
#include "weight.h"

// A step is used again two Samples after its own: see kernels.Backend.Wait.
#define PG_STEPS 3

// pg_has says whether the processor has what the code path needs; pg_best_isa
// is the fastest one that it has. isa.c.
bool pg_has(enum pg_isa isa);
enum pg_isa pg_best_isa(void);
bool pg_has_vnni(void);

// pg_workspace_bytes is what pg_setup maps, in bytes.
int64_t pg_workspace_bytes(const struct pg_device *d, const struct pg_shape *m, const struct pg_limits *l);
// pg_setup maps activations, row state and steps for d->shape and d->limits.
// The result is the mapping, of pg_workspace_bytes, or NULL and errno.
void *pg_setup(struct pg_device *d, struct pg_step *steps);
void pg_workspace_free(void *workspace, int64_t bytes);

// pg_row_reset gives the row to another sequence. The lists are copied;
// prompt and output are counted if sampling->penalties. false: no memory.
bool pg_row_reset(const struct pg_device *d, int row, const struct pg_sampling *sampling,
                  const int32_t *stop_ids, const struct pg_token_bias *bias, const int32_t *prompt,
                  int num_prompt, const int32_t *output, int num_output);
void pg_rows_free(const struct pg_device *d);

// pg_blocks_reserve reserves addresses; pg_blocks_resize makes the first bytes
// usable, zero where they were not before, and gives the memory of the rest
// back. 0, or errno.
int pg_blocks_reserve(struct pg_blocks *b, int64_t reserved);
int pg_blocks_resize(struct pg_blocks *b, int64_t bytes);
void pg_blocks_free(struct pg_blocks *b);
// pg_weights_take gives zeroed memory behind the last weight's; NULL and errno: there is none.
char *pg_weights_take(struct pg_device *d, int64_t bytes);

// pg_copy_blocks copies num whole blocks of `bytes` bytes, pairs (source,
// destination), and returns when they are copied; op receives the times.
void pg_copy_blocks(const struct pg_device *d, struct pg_op *op, const char *src, char *dst, int64_t bytes,
                    int num, const int32_t *pairs);

