//go:build cuda

#include "nvtx.h"

#include <nvtx3/nvToolsExt.h>

int pg_nvtx_attached(void) {
	nvtxInitialize(NULL);
	return NVTX_VERSIONED_IDENTIFIER(nvtxGlobals).nvtxRangePushA_impl_fnptr != NULL;
}

void pg_nvtx_push(const char *name) { nvtxRangePushA(name); }

void pg_nvtx_pop(void) { nvtxRangePop(); }
