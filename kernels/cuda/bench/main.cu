// Checks the heavy kernels against float64 and times them:
//
//   kernels-test [check] [time] [skinny] [mma] [stream] [wide] [sm90] [decode] [prefill] [copies] [chain] [code] [WORD ...]
//
// Without a mode both, without a name all. Other words choose the products that are timed:
// numbers are of tokens, the rest how a shape's name begins ("7B qkv"). Ends with the number of
// failures.
#include "bench.cuh"

int main(int argc, char **argv) {
	bool any_mode = false, any_name = false;
	auto asked = [&](const char *s) {
		for (int i = 1; i < argc; i++)
			if (!strcmp(argv[i], s)) return true;
		return false;
	};
	cudaDeviceProp device;
	CHECK(cudaGetDeviceProperties(&device, 0));
	printf("%s, %d SMs, L2 %d MB\n", device.name, device.multiProcessorCount, device.l2CacheSize >> 20);
	const struct {
		const char *name;
		void (*run)(bool, bool);
	} parts[] = {{"decode", bench_decode}, {"skinny", bench_skinny}, {"mma", bench_mma}, {"stream", bench_stream}, {"wide", bench_wide}, {"sm90", bench_sm90}, {"prefill", bench_prefill}, {"copies", bench_copies}, {"chain", bench_chain}, {"code", bench_code}};
	for (int i = 1; i < argc; i++) {
		bool mode = !strcmp(argv[i], "check") || !strcmp(argv[i], "time"), name = false;
		for (auto &part : parts) name |= !strcmp(argv[i], part.name);
		any_mode |= mode, any_name |= name;
		if (!mode && !name) bench::words.push_back(argv[i]);
	}
	bool check = !any_mode || asked("check"), times = !any_mode || asked("time");
	for (auto &part : parts)
		if (!any_name || asked(part.name)) part.run(check, times);
	printf("%d failures\n", bench::failures);
	return bench::failures != 0;
}
