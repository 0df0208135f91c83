// A libcuda that every binary links statically: each driver function is a jump
// through a table, which its first call fills from the machine's libcuda.so.1.
// Without a driver there are zero devices and every other call fails with
// CUDA_ERROR_NO_DEVICE, so that one binary runs with and without a GPU.
//
// scripts/cuda-trampoline.sh makes names.h (NAME("cuX") for each function) and
// the jumps, which pass the index of their function to pagoda_cuda_resolve.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100, NOT_SUPPORTED = 801 };

static const char *const names[] = {
#define NAME(n) n,
#include "names.h"
};
#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN void *pagoda_cuda_table[sizeof names / sizeof *names];

static void *driver;
static char status[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		snprintf(status, sizeof status, "no NVIDIA driver: %s", dlerror());
		return;
	}
	int (*init)(unsigned) = (int (*)(unsigned))dlsym(lib, "cuInit");
	int code = init ? init(0) : NOT_SUPPORTED;
	if (code != SUCCESS) {
		snprintf(status, sizeof status, "the NVIDIA driver cannot be used: cuInit fails with error %d", code);
		return;
	}
	driver = lib;
}

// pagoda_cuda_status says why there is no driver; "" when there is one.
const char *pagoda_cuda_status(void) {
	pthread_once(&once, load);
	return status;
}

// cu's init calls it in every process; the real one comes with the first other
// call, since it takes a tenth of a second.
HIDDEN int cuInit(unsigned flags) {
	(void)flags;
	return SUCCESS;
}

static int no_device(void) { return NO_DEVICE; }
static int not_supported(void) { return NOT_SUPPORTED; }

static int zero(int *out) {
	*out = 0;
	return SUCCESS;
}

static int error_text(int code, const char **text) {
	*text = code == NO_DEVICE ? "no NVIDIA driver or no device" : "error of the CUDA driver";
	return SUCCESS;
}

// pagoda_cuda_resolve finds function i and keeps it.
HIDDEN void *pagoda_cuda_resolve(unsigned i) {
	pthread_once(&once, load);
	void *f = driver ? dlsym(driver, names[i]) : NULL;
	if (!f && driver) f = (void *)not_supported;
	if (!f) f = (void *)no_device;
	if (!driver && (!strcmp(names[i], "cuDeviceGetCount") || !strcmp(names[i], "cuDriverGetVersion"))) f = (void *)zero;
	if (!driver && (!strcmp(names[i], "cuGetErrorString") || !strcmp(names[i], "cuGetErrorName"))) f = (void *)error_text;
	__atomic_store_n(&pagoda_cuda_table[i], f, __ATOMIC_RELEASE);
	return f;
}
