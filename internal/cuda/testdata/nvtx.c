// A tool that NVTX loads: it writes ranges to standard error.
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>

static int push(const char *name) { return fprintf(stderr, "<%s", name); }
static int pop(void) { return fprintf(stderr, ">"); }

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t export) {
	const NvtxExportTableCallbacks *t = export(NVTX_ETID_CALLBACKS);
	NvtxFunctionTable table = NULL;
	unsigned n = 0;
	if (!t || !t->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &n)) return 0;
	*table[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)push;
	*table[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)pop;
	return 1;
}
