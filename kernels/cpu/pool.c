// The worker pool: N threads run programs, one after another, phase by phase.
//
// Scheduling. Threads claim ranges of a phase's units with one compare-and-swap;
// a range is half of what remains divided by the threads, at most the phase's
// grain (guided self-scheduling; Polychronopoulos and Kuck, IEEE TC 1987). A
// phase is over when all its units are complete, whoever ran them: a thread that
// the system holds off its core delays the others by its own range only, and
// finds the program further on when it comes back. No thread waits for another
// to arrive.
//
// Waiting. A thread without work spins for at most SPIN_NS, then sleeps on a
// futex. Where another process has one of the cores, sleeping is what lets the
// kernel move the held-off thread to the free one (llama.cpp, whose barriers
// spin, falls to 13 % of its speed there).
//
// Memory order. What a phase wrote is seen by the next through the release
// sequence on `done` (every thread adds to it) and the release of `current`,
// which every thread acquires. A program is recorded anew only when `refs` is 0;
// a worker that took a reference too late sees that `finished` has moved on and
// touches nothing else. So programs and their phases stay where they are until the
// threads have ended: a worker may look at one at any time after it is over.
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 20000
#define CACHE_LINE 64

struct phase {
	pg_phase_fn fn;
	struct pg_step *step;
	struct pg_op *op;
	int32_t units, grain;
	_Alignas(CACHE_LINE) _Atomic int32_t next; // first unit that nobody claimed
	_Alignas(CACHE_LINE) _Atomic int32_t done; // units complete
};

struct pg_phases {
	int32_t count, max;
	_Alignas(CACHE_LINE) _Atomic int32_t current; // phase that runs; count: finished
	_Alignas(CACHE_LINE) _Atomic int32_t refs;    // workers that look at this program
	struct phase list[];
};

// A word that threads sleep on until something they wait for has changed.
struct event {
	_Atomic uint32_t count; // changes so far
	_Atomic uint32_t sleepers;
};

struct worker {
	struct pg_pool *pool;
	int index;
	pthread_t thread;
};

struct pg_pool {
	const struct pg_device *device;
	int threads;
	bool timed; // workers count what they spend on an operation
	struct worker *workers;
	struct pg_program *_Atomic ring[PG_RING]; // program n is at n % PG_RING
	_Alignas(CACHE_LINE) _Atomic uint64_t submitted;
	_Alignas(CACHE_LINE) _Atomic uint64_t finished;
	_Alignas(CACHE_LINE) struct event progress; // for workers
	_Alignas(CACHE_LINE) struct event completed; // for pg_wait
	_Atomic bool quit;
	struct pg_program alone; // of pg_run_op
	struct pg_step alone_step;
};

int64_t pg_now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void relax(void) {
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	__asm__ volatile("yield");
#endif
}

static void event_signal(struct event *e) {
	atomic_fetch_add(&e->count, 1);
	if (atomic_load(&e->sleepers) > 0)
		syscall(SYS_futex, &e->count, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

// event_wait returns when ready(arg), which must become true before a signal.
// All its atomics are sequentially consistent: a signal that sees no sleeper
// comes before the sleeper's last look at count, which the kernel then refuses.
static void event_wait(struct event *e, bool (*ready)(void *), void *arg, int64_t spin_ns) {
	if (ready(arg)) return;
	if (spin_ns > 0) {
		int64_t end = pg_now_ns() + spin_ns;
		do {
			for (int i = 0; i < 16; i++) {
				relax();
				if (ready(arg)) return;
			}
		} while (pg_now_ns() < end);
	}
	for (;;) {
		atomic_fetch_add(&e->sleepers, 1);
		uint32_t seen = atomic_load(&e->count);
		bool go = ready(arg);
		if (!go) syscall(SYS_futex, &e->count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		atomic_fetch_sub(&e->sleepers, 1);
		if (go || ready(arg)) return;
	}
}

int64_t pg_phases_bytes(int max_ops) {
	return sizeof(struct pg_phases) + (int64_t)max_ops * PG_MAX_PHASES * sizeof(struct phase);
}

void pg_phases_init(struct pg_phases *phases, int max_ops) {
	phases->max = max_ops * PG_MAX_PHASES;
	phases->count = 0;
	atomic_init(&phases->current, 0);
	atomic_init(&phases->refs, 0);
}

void pg_program_quiet(struct pg_program *program) {
	while (atomic_load(&program->phases->refs) != 0) sched_yield();
}

void pg_push(struct pg_step *s, const struct pg_op *op, pg_phase_fn fn, int units, int grain) {
	struct pg_phases *p = s->planning->phases;
	if (units <= 0) return;
	if (p->count == p->max) {
		fprintf(stderr, "cpu: more than %d phases\n", p->max);
		abort();
	}
	struct phase *ph = &p->list[p->count++];
	ph->fn = fn;
	ph->step = s;
	ph->op = (struct pg_op *)op; // its times are written
	ph->units = units;
	ph->grain = grain < 1 ? 1 : grain;
	atomic_store_explicit(&ph->next, 0, memory_order_relaxed);
	atomic_store_explicit(&ph->done, 0, memory_order_relaxed);
}

static void no_work(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                    int first, int count, int worker) {
	(void)d, (void)s, (void)op, (void)first, (void)count, (void)worker;
}

static void plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	switch ((enum pg_op_kind)op->kind) {
	case PG_EMBED: return pg_embed_plan(d, s, op);
	case PG_RMSNORM: return pg_rmsnorm_plan(d, s, op);
	case PG_QKV: return pg_qkv_plan(d, s, op);
	case PG_ATTENTION: return pg_attention_plan(d, s, op);
	case PG_LINEAR: return pg_linear_plan(d, s, op);
	case PG_GATE_UP: return pg_gate_up_plan(d, s, op);
	case PG_HEAD: return pg_head_plan(d, s, op);
	case PG_SAMPLE: return pg_sample_plan(d, s, op);
	case PG_KEEP: return pg_keep_plan(d, s, op);
	case PG_COPY: return pg_copy_plan(d, s, op);
	case PG_PACK: return pg_pack_plan(d, s, op);
	}
}

uint64_t pg_submit(const struct pg_device *d, struct pg_step *s, struct pg_program *program) {
	struct pg_pool *pool = d->pool;
	struct pg_phases *p = program->phases;
	s->planning = program;
	p->count = 0;
	for (int i = 0; i < program->num_ops; i++) {
		struct pg_op *op = &program->ops[i];
		int before = p->count;
		plan(d, s, op);
		// Every operation has a phase, so that each gets its time.
		if (p->count == before) pg_push(s, op, no_work, 1, 1);
		if (op->kind == PG_KEEP) {
			s = s->kept;
			s->planning = program;
		}
	}
	if (p->count == 0) return atomic_load(&pool->submitted);
	atomic_store(&p->current, 0);

	uint64_t n = atomic_load(&pool->submitted);
	if (n >= PG_RING) pg_wait(pool, n - PG_RING + 1);
	atomic_store(&pool->ring[n % PG_RING], program);
	atomic_store(&pool->submitted, n + 1);
	event_signal(&pool->progress);
	return n + 1;
}

void pg_pool_time(struct pg_pool *pool, bool on) { pool->timed = on; }

struct completion { struct pg_pool *pool; uint64_t n; };

static bool is_finished(void *arg) {
	struct completion *c = arg;
	return atomic_load(&c->pool->finished) >= c->n;
}

void pg_wait(struct pg_pool *pool, uint64_t n) {
	struct completion c = {pool, n};
	event_wait(&pool->completed, is_finished, &c, 0);
}

// claim takes a range of units; false: none are left.
static bool claim(struct phase *ph, int threads, int32_t *first, int32_t *count) {
	int32_t next = atomic_load_explicit(&ph->next, memory_order_relaxed), n;
	do {
		int32_t left = ph->units - next;
		if (left <= 0) return false;
		n = left / (2 * threads);
		n = n < 1 ? 1 : n > ph->grain ? ph->grain : n;
	} while (!atomic_compare_exchange_weak_explicit(&ph->next, &next, next + n, memory_order_relaxed,
	                                                memory_order_relaxed));
	*first = next;
	*count = n;
	return true;
}

// finish_phase publishes that phase i is complete.
static void finish_phase(struct pg_pool *pool, struct pg_phases *p, int i) {
	int64_t now = pg_now_ns();
	struct pg_op *op = p->list[i].op;
	op->end_ns = now;
	bool last = i + 1 == p->count;
	if (!last && p->list[i + 1].op != op) p->list[i + 1].op->start_ns = now;
	atomic_store(&p->current, i + 1);
	if (last) {
		atomic_fetch_add(&pool->finished, 1);
		event_signal(&pool->completed);
	}
	event_signal(&pool->progress);
}

struct position { struct pg_phases *p; int32_t at; };

static bool has_moved(void *arg) {
	struct position *w = arg;
	return atomic_load_explicit(&w->p->current, memory_order_acquire) != w->at;
}

static void run_program(struct worker *w, struct pg_phases *p) {
	struct pg_pool *pool = w->pool;
	int32_t i, first, count;
	while ((i = atomic_load_explicit(&p->current, memory_order_acquire)) < p->count) {
		struct phase *ph = &p->list[i];
		while (claim(ph, pool->threads, &first, &count)) {
			if (i == 0 && first == 0) ph->op->start_ns = pg_now_ns();
			int64_t begin = pool->timed ? pg_now_ns() : 0;
			ph->fn(pool->device, ph->step, ph->op, first, count, w->index);
			if (begin) __atomic_fetch_add(&ph->op->busy_ns, pg_now_ns() - begin, __ATOMIC_RELAXED);
			if (atomic_fetch_add_explicit(&ph->done, count, memory_order_acq_rel) + count == ph->units)
				finish_phase(pool, p, i);
		}
		struct position pos = {p, i};
		event_wait(&pool->progress, has_moved, &pos, SPIN_NS);
	}
}

static bool has_work(void *arg) {
	struct pg_pool *pool = arg;
	return atomic_load(&pool->quit) || atomic_load(&pool->submitted) != atomic_load(&pool->finished);
}

void pg_run_op(const struct pg_device *d, struct pg_op *op) {
	struct pg_pool *pool = d->pool;
	pg_program_quiet(&pool->alone);
	pool->alone.ops = op;
	pg_wait(pool, pg_submit(d, &pool->alone_step, &pool->alone));
	pg_program_quiet(&pool->alone);
}

static void *work(void *arg) {
	struct worker *w = arg;
	struct pg_pool *pool = w->pool;
	for (;;) {
		event_wait(&pool->progress, has_work, pool, SPIN_NS);
		if (atomic_load(&pool->quit)) return NULL;
		uint64_t n = atomic_load(&pool->finished);
		if (n == atomic_load(&pool->submitted)) continue;
		struct pg_phases *p = atomic_load(&pool->ring[n % PG_RING])->phases;
		atomic_fetch_add(&p->refs, 1);
		if (atomic_load(&pool->finished) == n) run_program(w, p);
		atomic_fetch_sub(&p->refs, 1);
	}
}

struct pg_pool *pg_pool_new(const struct pg_device *d, int threads) {
	struct pg_pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
	if (!pool) return NULL;
	*pool = (struct pg_pool){.device = d, .workers = calloc(threads, sizeof(struct worker))};
	pool->alone = (struct pg_program){.num_ops = 1, .max_ops = 1, .phases = aligned_alloc(CACHE_LINE, (pg_phases_bytes(1) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE)};
	if (!pool->workers || !pool->alone.phases) {
		free(pool->workers);
		free(pool->alone.phases);
		free(pool);
		return NULL;
	}
	pg_phases_init(pool->alone.phases, 1);
	// Set before any thread runs: claim divides by it.
	pool->threads = threads;
	for (int i = 0; i < threads; i++) {
		pool->workers[i] = (struct worker){.pool = pool, .index = i};
		int err = pthread_create(&pool->workers[i].thread, NULL, work, &pool->workers[i]);
		if (err != 0) {
			pool->threads = i;
			pg_pool_free(pool);
			errno = err;
			return NULL;
		}
	}
	return pool;
}

void pg_pool_free(struct pg_pool *pool) {
	atomic_store(&pool->quit, true);
	event_signal(&pool->progress);
	for (int i = 0; i < pool->threads; i++) pthread_join(pool->workers[i].thread, NULL);
	free(pool->workers);
	free(pool->alone.phases);
	free(pool);
}
