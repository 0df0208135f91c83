// Worker threads and the programs that they run. See pool.c.
#pragma once

#include "kernels.h"

// The most programs that may be submitted and not finished.
#define PG_RING 16

// pg_pool_new starts the threads; NULL and errno when the system refuses.
struct pg_pool *pg_pool_new(const struct pg_device *d, int threads);
// pg_pool_free ends the threads and waits for them; nothing may be running.
void pg_pool_free(struct pg_pool *pool);

// Programs: reserve memory for max_ops operations with pg_phases_bytes(max_ops)
// bytes at phases.
int64_t pg_phases_bytes(int max_ops);
void pg_phases_init(struct pg_phases *phases, int max_ops);
// pg_program_quiet waits until no worker looks at a finished program any more,
// so that it may be recorded anew.
void pg_program_quiet(struct pg_program *program);

// pg_submit plans the program and queues it behind those submitted before. What is behind
// PG_KEEP is planned, and run, for s->kept. It returns the program's number, from 1.
uint64_t pg_submit(const struct pg_device *d, struct pg_step *s, struct pg_program *program);
// pg_wait sleeps until program number n is finished.
void pg_wait(struct pg_pool *pool, uint64_t n);

// pg_run_op runs one operation by itself and waits for it; one caller at a time.
void pg_run_op(const struct pg_device *d, struct pg_op *op);

// pg_pool_time turns the timing of workers (pg_op.busy_ns) on or off; no program
// may be running.
void pg_pool_time(struct pg_pool *pool, bool on);

int64_t pg_now_ns(void);
