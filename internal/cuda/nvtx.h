// Ranges that NVIDIA's tools show, such as Nsight Systems. They cost nothing
// unless a tool is attached.
#pragma once

int pg_nvtx_attached(void);
void pg_nvtx_push(const char *name);
void pg_nvtx_pop(void);
