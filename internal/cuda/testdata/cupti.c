// A CUPTI that needs no GPU: every push is a call that copies 4096 bytes and launches
// a kernel, and every pop one that fills memory. Records are those of the real headers.
#include <cupti.h>
#include <string.h>

static CUpti_BuffersCallbackRequestFunc request;
static CUpti_BuffersCallbackCompleteFunc complete;
static int enabled;
static uint64_t now = 1000;
static uint32_t correlation;
static uint8_t *buffer;
static size_t size, used;

static size_t bytes(const CUpti_Activity *r) {
	switch (r->kind) {
	case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: return sizeof(CUpti_ActivityKernel10);
	case CUPTI_ACTIVITY_KIND_MEMCPY: return sizeof(CUpti_ActivityMemcpy6);
	case CUPTI_ACTIVITY_KIND_MEMSET: return sizeof(CUpti_ActivityMemset4);
	case CUPTI_ACTIVITY_KIND_DRIVER: return sizeof(CUpti_ActivityAPI);
	case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: return sizeof(CUpti_ActivityExternalCorrelation);
	default: return sizeof(CUpti_ActivityOverhead3); // of no interest
	}
}

static void emit(const void *record) {
	size_t n = bytes(record), most;
	if (!enabled) return;
	if (buffer && used + n > size) {
		complete(NULL, 0, buffer, size, used);
		buffer = NULL;
	}
	if (!buffer) {
		request(&buffer, &size, &most);
		used = 0;
	}
	memcpy(buffer + used, record, n);
	used += n;
}

CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc r, CUpti_BuffersCallbackCompleteFunc c) {
	request = r, complete = c;
	return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) { (void)kind; enabled++; return CUPTI_SUCCESS; }
CUptiResult cuptiActivityDisable(CUpti_ActivityKind kind) { (void)kind; enabled--; return CUPTI_SUCCESS; }
CUptiResult cuptiActivityFlushAll(uint32_t flag) {
	(void)flag;
	if (buffer) complete(NULL, 0, buffer, size, used);
	buffer = NULL;
	return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityGetNextRecord(uint8_t *b, size_t valid, CUpti_Activity **record) {
	uint8_t *next = *record ? (uint8_t *)*record + bytes(*record) : b;
	if (next >= b + valid) return CUPTI_ERROR_MAX_LIMIT_REACHED;
	*record = (CUpti_Activity *)next;
	return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext c, uint32_t s, size_t *n) { (void)c, (void)s; *n = 3; return CUPTI_SUCCESS; }
CUptiResult cuptiGetTimestamp(uint64_t *t) { *t = now; return CUPTI_SUCCESS; }
CUptiResult cuptiGetResultString(CUptiResult r, const char **s) { (void)r; *s = "CUPTI_ERROR_FAKE"; return CUPTI_SUCCESS; }

static void call(uint64_t id) {
	CUpti_ActivityExternalCorrelation link = {.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION, .externalId = id, .correlationId = ++correlation};
	CUpti_ActivityAPI api = {.kind = CUPTI_ACTIVITY_KIND_DRIVER, .start = now, .end = now + 3, .correlationId = correlation};
	CUpti_ActivityOverhead3 overhead = {.kind = CUPTI_ACTIVITY_KIND_OVERHEAD};
	if (id) emit(&link);
	emit(&api);
	emit(&overhead);
	now += 10;
}

CUptiResult cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t id) {
	(void)kind;
	call(id);
	CUpti_ActivityMemcpy6 copy = {.kind = CUPTI_ACTIVITY_KIND_MEMCPY, .copyKind = CUPTI_ACTIVITY_MEMCPY_KIND_HTOD, .bytes = 4096, .start = now, .end = now + 5, .deviceId = 1, .contextId = 2, .streamId = 7, .correlationId = correlation};
	emit(&copy);
	call(id);
	CUpti_ActivityKernel10 kernel = {
		.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, .registersPerThread = 168, .start = now, .end = now + 100, .deviceId = 1, .contextId = 2, .streamId = 7,
		.gridX = 132, .gridY = 2, .gridZ = 1, .blockX = 384, .blockY = 1, .blockZ = 1, .staticSharedMemory = 1024, .dynamicSharedMemory = 200000,
		.correlationId = correlation, .name = "gemm", .graphNodeId = 5ull << 32,
	};
	emit(&kernel);
	return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t *last) {
	(void)kind;
	*last = 0;
	call(0);
	CUpti_ActivityMemset4 set = {.kind = CUPTI_ACTIVITY_KIND_MEMSET, .bytes = 64, .start = now, .end = now + 1, .deviceId = 1, .streamId = 7, .correlationId = correlation};
	emit(&set);
	return CUPTI_SUCCESS;
}
