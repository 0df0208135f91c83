// The memory of the KV pool, of the swap pool and of the weights. Addresses are reserved
// once for as much as the machine has, so that growing never moves what is there; pages
// are made usable and given back as the memory is resized, and cost memory when first
// written.
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "pool.h"

#define PAGE 4096

static int64_t pages(int64_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

int pg_blocks_reserve(struct pg_blocks *b, int64_t reserved) {
	reserved = pages(reserved);
	void *p = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) return errno;
	madvise(p, reserved, MADV_HUGEPAGE);
	*b = (struct pg_blocks){.base = p, .reserved = reserved};
	return 0;
}

int pg_blocks_resize(struct pg_blocks *b, int64_t bytes) {
	int64_t to = pages(bytes), from = pages(b->bytes);
	if (to > b->reserved) return ENOMEM;
	if (to > from && mprotect(b->base + from, to - from, PROT_READ | PROT_WRITE) != 0) return errno;
	if (to < from) {
		if (madvise(b->base + to, from - to, MADV_DONTNEED) != 0) return errno;
		if (mprotect(b->base + to, from - to, PROT_NONE) != 0) return errno;
	}
	// What the last page keeps of dropped blocks must not come back.
	if (bytes < b->bytes) memset(b->base + bytes, 0, (to < b->bytes ? to : b->bytes) - bytes);
	b->bytes = bytes;
	return 0;
}

void pg_blocks_free(struct pg_blocks *b) {
	if (b->base) munmap(b->base, b->reserved);
	*b = (struct pg_blocks){0};
}

// Huge pages spare a page walk every 64 cache lines of a stream and most of the faults of a
// start. The system gives one only where all of it may be used, so that the usable part
// ends between two.
char *pg_weights_take(struct pg_device *d, int64_t bytes) {
	const int64_t huge = 2 << 20, base = (int64_t)(uintptr_t)d->weights.base;
	int64_t begin = (d->weights_used + 63) / 64 * 64, end = begin + bytes;
	int64_t usable = (base + end + huge - 1) / huge * huge - base;
	if (usable > d->weights.bytes && (errno = pg_blocks_resize(&d->weights, usable))) return NULL;
	d->weights_used = end;
	return d->weights.base + begin;
}

struct copies {
	const char *src;
	char *dst;
	int64_t bytes;
	int num;
	const int32_t *pairs;
};

static void copy_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)d, (void)s, (void)worker;
	const struct copies *c = op->arg;
	for (int i = first; i < first + count; i++)
		memcpy(c->dst + c->pairs[2 * i + 1] * c->bytes, c->src + c->pairs[2 * i] * c->bytes, c->bytes);
}

void pg_copy_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	const struct copies *c = op->arg;
	pg_push(s, op, copy_phase, c->num, 16);
}

void pg_copy_blocks(const struct pg_device *d, struct pg_op *op, const char *src, char *dst, int64_t bytes,
                    int num, const int32_t *pairs) {
	struct copies c = {src, dst, bytes, num, pairs};
	*op = (struct pg_op){.kind = PG_COPY, .layer = -1, .arg = &c};
	pg_run_op(d, op);
	op->arg = NULL;
}
