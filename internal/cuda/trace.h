// What the GPU ran, by CUPTI's activity interface, which is loaded when it is first
// asked for. One trace at a time; calls come from one thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { PG_KERNEL, PG_COPY, PG_SET, PG_CALL, PG_LINK };

// An activity. Times are nanoseconds of CUPTI's clock.
struct pg_activity {
	uint32_t kind;
	uint32_t correlation; // of the driver call that issued it
	uint64_t start, end;
	uint64_t external; // PG_LINK: the id that was pushed around the call
	uint64_t bytes;    // PG_COPY, PG_SET
	uint32_t device, context, stream;
	uint32_t copy; // PG_COPY: CUpti_ActivityMemcpyKind
	int32_t grid[3], cta[3];
	int32_t registers, static_shared, dynamic_shared;
	int32_t in_graph; // PG_KERNEL: the call launched a graph, which has it
	char name[128]; // PG_KERNEL; cut where it is longer
};

// The calls give 0 or a CUptiResult; pg_trace_error puts it into words.
// pg_trace_open loads the library; on failure it gives −1 and the reason in words.
int pg_trace_open(const char *path, char *reason, size_t size);
int pg_trace_start(void);
// pg_trace_stop delivers what is complete; the device must be idle.
int pg_trace_stop(void);
int pg_trace_push(uint64_t id);
int pg_trace_pop(void);
int pg_trace_now(uint64_t *ns);
// pg_trace_take moves up to max activities to out, in the order of delivery.
size_t pg_trace_take(struct pg_activity *out, size_t max);
// pg_trace_dropped counts activities since the start that there was no room for.
size_t pg_trace_dropped(void);
const char *pg_trace_error(int result);
