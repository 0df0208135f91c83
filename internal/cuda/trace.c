//go:build cuda

#include "trace.h"

#include <cupti.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES (1 << 20)
#define MOST (1 << 20) // activities that are kept
#define NONE (-1)      // no library, or no memory

static struct {
	CUptiResult (*register_callbacks)(CUpti_BuffersCallbackRequestFunc, CUpti_BuffersCallbackCompleteFunc);
	CUptiResult (*enable)(CUpti_ActivityKind);
	CUptiResult (*disable)(CUpti_ActivityKind);
	CUptiResult (*flush)(uint32_t);
	CUptiResult (*next)(uint8_t *, size_t, CUpti_Activity **);
	CUptiResult (*dropped)(CUcontext, uint32_t, size_t *);
	CUptiResult (*push)(CUpti_ExternalCorrelationKind, uint64_t);
	CUptiResult (*pop)(CUpti_ExternalCorrelationKind, uint64_t *);
	CUptiResult (*timestamp)(uint64_t *);
	CUptiResult (*text)(CUptiResult, const char **);
} api;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of what follows
static struct pg_activity *list;
static size_t count, capacity, taken, lost;

static const CUpti_ActivityKind kinds[] = {
	CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION, CUPTI_ACTIVITY_KIND_DRIVER, CUPTI_ACTIVITY_KIND_MEMCPY,
	CUPTI_ACTIVITY_KIND_MEMSET, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
};
#define KINDS (sizeof kinds / sizeof *kinds)

int pg_trace_open(const char *path, char *reason, size_t size) {
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		snprintf(reason, size, "%s", dlerror());
		return NONE;
	}
	const struct { const char *name; void **to; } symbols[] = {
		{"cuptiActivityRegisterCallbacks", (void **)&api.register_callbacks},
		{"cuptiActivityEnable", (void **)&api.enable},
		{"cuptiActivityDisable", (void **)&api.disable},
		{"cuptiActivityFlushAll", (void **)&api.flush},
		{"cuptiActivityGetNextRecord", (void **)&api.next},
		{"cuptiActivityGetNumDroppedRecords", (void **)&api.dropped},
		{"cuptiActivityPushExternalCorrelationId", (void **)&api.push},
		{"cuptiActivityPopExternalCorrelationId", (void **)&api.pop},
		{"cuptiGetTimestamp", (void **)&api.timestamp},
		{"cuptiGetResultString", (void **)&api.text},
	};
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
		*symbols[i].to = dlsym(lib, symbols[i].name);
		if (!*symbols[i].to) {
			snprintf(reason, size, "%s has no %s", path, symbols[i].name);
			dlclose(lib);
			return NONE;
		}
	}
	return 0; // it stays loaded: CUPTI has threads of its own
}

const char *pg_trace_error(int result) {
	const char *text = NULL;
	if (result == NONE) return "no memory for the trace";
	if (!api.text || api.text(result, &text) != CUPTI_SUCCESS || !text) return "unknown error";
	return text;
}

// decode translates a record; 0 = it is of no interest.
static int decode(const CUpti_Activity *record, struct pg_activity *a) {
	memset(a, 0, sizeof *a);
	switch (record->kind) {
	case CUPTI_ACTIVITY_KIND_KERNEL:
	case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
		const CUpti_ActivityKernel10 *k = (const CUpti_ActivityKernel10 *)record;
		*a = (struct pg_activity){
			.kind = PG_KERNEL, .correlation = k->correlationId, .start = k->start, .end = k->end,
			.device = k->deviceId, .context = k->contextId, .stream = k->streamId,
			.grid = {k->gridX, k->gridY, k->gridZ}, .cta = {k->blockX, k->blockY, k->blockZ},
			.registers = k->registersPerThread, .static_shared = k->staticSharedMemory, .dynamic_shared = k->dynamicSharedMemory,
			.in_graph = k->graphNodeId != 0,
		};
		snprintf(a->name, sizeof a->name, "%s", k->name ? k->name : "kernel");
		return 1;
	}
	case CUPTI_ACTIVITY_KIND_MEMCPY: {
		const CUpti_ActivityMemcpy6 *m = (const CUpti_ActivityMemcpy6 *)record;
		*a = (struct pg_activity){
			.kind = PG_COPY, .correlation = m->correlationId, .start = m->start, .end = m->end, .bytes = m->bytes,
			.device = m->deviceId, .context = m->contextId, .stream = m->streamId, .copy = m->copyKind,
		};
		return 1;
	}
	case CUPTI_ACTIVITY_KIND_MEMSET: {
		const CUpti_ActivityMemset4 *m = (const CUpti_ActivityMemset4 *)record;
		*a = (struct pg_activity){
			.kind = PG_SET, .correlation = m->correlationId, .start = m->start, .end = m->end, .bytes = m->bytes,
			.device = m->deviceId, .context = m->contextId, .stream = m->streamId,
		};
		return 1;
	}
	case CUPTI_ACTIVITY_KIND_DRIVER: {
		const CUpti_ActivityAPI *c = (const CUpti_ActivityAPI *)record;
		*a = (struct pg_activity){.kind = PG_CALL, .correlation = c->correlationId, .start = c->start, .end = c->end};
		return 1;
	}
	case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
		const CUpti_ActivityExternalCorrelation *e = (const CUpti_ActivityExternalCorrelation *)record;
		*a = (struct pg_activity){.kind = PG_LINK, .correlation = e->correlationId, .external = e->externalId};
		return 1;
	}
	default:
		return 0;
	}
}

// keep adds an activity under the lock.
static void keep(const struct pg_activity *a) {
	if (count == capacity) {
		size_t more = capacity ? 2 * capacity : 4096;
		struct pg_activity *grown = more <= MOST ? realloc(list, more * sizeof *list) : NULL;
		if (!grown) {
			lost++;
			return;
		}
		list = grown;
		capacity = more;
	}
	list[count++] = *a;
}

static void CUPTIAPI requested(uint8_t **buffer, size_t *size, size_t *most) {
	*buffer = aligned_alloc(8, BUFFER_BYTES);
	*size = *buffer ? BUFFER_BYTES : 0;
	*most = 0; // as many records as fit
}

static void CUPTIAPI completed(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
	(void)size;
	CUpti_Activity *record = NULL;
	struct pg_activity a;
	size_t missing = 0;
	pthread_mutex_lock(&lock);
	while (valid > 0 && api.next(buffer, valid, &record) == CUPTI_SUCCESS)
		if (decode(record, &a)) keep(&a);
	if (api.dropped(context, stream, &missing) == CUPTI_SUCCESS) lost += missing;
	pthread_mutex_unlock(&lock);
	free(buffer);
}

int pg_trace_start(void) {
	pthread_mutex_lock(&lock);
	count = taken = lost = 0;
	pthread_mutex_unlock(&lock);
	CUptiResult r = api.register_callbacks(requested, completed);
	size_t on = 0;
	for (; !r && on < KINDS; on++) r = api.enable(kinds[on]);
	if (r)
		while (on-- > 0) api.disable(kinds[on]);
	return r;
}

int pg_trace_stop(void) {
	CUptiResult r = CUPTI_SUCCESS;
	for (size_t i = KINDS; i-- > 0;) {
		CUptiResult one = api.disable(kinds[i]);
		if (!r) r = one;
	}
	CUptiResult flushed = api.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
	return r ? r : flushed;
}

int pg_trace_push(uint64_t id) { return api.push(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, id); }

int pg_trace_pop(void) {
	uint64_t last;
	return api.pop(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, &last);
}

int pg_trace_now(uint64_t *ns) { return api.timestamp(ns); }

size_t pg_trace_take(struct pg_activity *out, size_t max) {
	pthread_mutex_lock(&lock);
	size_t n = count - taken < max ? count - taken : max;
	if (n) memcpy(out, list + taken, n * sizeof *list);
	taken += n;
	if (taken == count) { // all are out
		free(list);
		list = NULL;
		count = capacity = taken = 0;
	}
	pthread_mutex_unlock(&lock);
	return n;
}

size_t pg_trace_dropped(void) {
	pthread_mutex_lock(&lock);
	size_t n = lost;
	pthread_mutex_unlock(&lock);
	return n;
}
