#!/usr/bin/env python3
"""Times cuBLASLt (torch, float16) on the products of Qwen2.5, to compare with `kernels-test time
sm90`: graphs of products with weights in turn, so that no cache holds them. A line for outputs in
float16, and, of o and down, one for what the engine has there: sums added to float32. Prints µs
and TFLOP/s for each number of tokens, and, of a model all of whose products were timed, what a
decode step of these alone would take, without norms, sampling and what lies between two kernels:
all layers' products, the head's, and keys and values of 1,184 tokens a sequence at 4.60 TB/s.
Arguments choose lines by how they begin.

With --sustained it runs steps of a model instead (7B unless another is named), each for long enough that the card's
power decides: its products in order, and between qkv and o a read of as many bytes as the keys and values
are. Printed are ms, in which reads are counted at 4.60 TB/s: behind 1,184 tokens, and with 8, 16 … 256
of the 256 requests of `pagoda bench peers` left; what all their prompts would take in pieces of 8,192 tokens,
without attention; and what tokens a second that makes."""
import json
import pathlib
import sys
import time

import torch

SHAPES = {
    "7B qkv": (4608, 3584), "7B o": (3584, 3584), "7B gate_up": (37888, 3584), "7B down": (3584, 18944), "7B head": (152064, 3584),
    "1.5B qkv": (2048, 1536), "1.5B o": (1536, 1536), "1.5B gate_up": (17920, 1536), "1.5B down": (1536, 8960), "1.5B head": (151936, 1536),
    "0.5B qkv": (1152, 896), "0.5B o": (896, 896), "0.5B gate_up": (9728, 896), "0.5B down": (896, 4864), "0.5B head": (151936, 896),
}
MODELS = {"7B": (28, 2048), "1.5B": (28, 1024), "0.5B": (24, 512)}  # layers; bytes of a token's keys and values in each
TOKENS = (32, 64, 128, 256, 512, 1024, 2048, 8192)
DECODES, CONTEXT, READS = 512, 1184, 4.60e12  # tokens of a step, and of the head, at most; of context; bytes that an H200 reads a second


def noise(rows, cols, scale=1.0):
    return ((torch.rand(rows, cols, device="cuda") * 2 - 1) * scale).half()


def capture(step):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            step()
    torch.cuda.synchronize()
    return graph


def median_us(product, count, rest, replays=5):
    graph = capture(lambda: [product(i) for i in range(count)])
    times = []
    time.sleep(rest)  # where the card's power decides, what ran before counts
    for _ in range(replays + 2):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e3 / count)
    return sorted(times[2:])[replays // 2]


def measure(name, n, k, adds):
    weights = [noise(n, k, (3 / k) ** 0.5) for _ in range(max(2, min(16, int(400e6 / (2 * n * k)) + 1)))]
    line, times = f"{name:14}", {}
    for m in TOKENS:
        if name.endswith("head") and m > DECODES:
            break
        x, out = noise(m, k), torch.zeros(m, n, device="cuda", dtype=torch.float32 if adds else torch.float16)

        def product(i):
            w = weights[i % len(weights)].t()
            torch.addmm(out, x, w, torch.float32, out=out) if adds else torch.mm(x, w, out=out)

        us = median_us(product, max(len(weights), 8) if m <= 4096 else 4, 0.02 if m >= 256 else 0)
        times[m] = us
        line += f" | {m}: {us:.1f} ({2 * m * n * k / us / 1e6:.0f})"
    print(line, flush=True)
    return times


def print_steps(model, times):
    layers, kv = MODELS[model]
    line = f"{model:4} step, KV at {READS / 1e12:.2f} TB/s, ms"
    for m in TOKENS:
        if m <= DECODES:
            products = layers * sum(times[f"{model} {name}"][m] for name in ("qkv", "o +=", "gate_up", "down +=")) + times[model + " head"][m]
            line += f" | {m}: {products / 1e3 + layers * m * CONTEXT * kv / READS * 1e3:.3f}"
    print(line, flush=True)


def sustained_ms(graph, seconds):
    """The mean time of a replay in the second half of so many seconds."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began, count = time.monotonic(), 0
    while time.monotonic() < began + seconds / 2:
        graph.replay()
        torch.cuda.synchronize()
        count += 1
    start.record()
    for _ in range(count):
        graph.replay()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / count


class Steps:
    """A model's products, with weights of their own in each layer."""

    def __init__(self, model):
        (self.layers, self.kv), shapes = MODELS[model], {name.split()[1]: size for name, size in SHAPES.items() if name.startswith(model + " ")}
        self.weights = [{name: noise(n, k, (3 / k) ** 0.5) for name, (n, k) in shapes.items() if name != "head"} for _ in range(self.layers)]
        self.head = noise(*shapes["head"], (3 / shapes["head"][1]) ** 0.5)
        self.x = {name: noise(8192, k) for name, (n, k) in shapes.items()}
        self.out = {name: torch.zeros(8192 * n, device="cuda", dtype=torch.half) for name, (n, k) in shapes.items() if name in ("qkv", "gate_up")}
        self.logits = torch.zeros(DECODES * shapes["head"][0], device="cuda", dtype=torch.half)
        self.sums = torch.zeros(8192, shapes["o"][0], device="cuda")
        self.cache = torch.empty(self.layers, DECODES * CONTEXT * self.kv // 4, device="cuda", dtype=torch.int32).random_()

    def products(self, m, head, kv_bytes):
        for layer, weights in enumerate(self.weights):
            for name, w in weights.items():
                if name == "o" and kv_bytes > 0:
                    self.read(layer, kv_bytes)
                x = self.x[name][:m]
                if name in self.out:
                    torch.mm(x, w.t(), out=self.out[name][: m * w.shape[0]].view(m, -1))
                else:
                    torch.addmm(self.sums[:m], x, w.t(), torch.float32, out=self.sums[:m])
        if head:
            torch.mm(self.x["head"][:m], self.head.t(), out=self.logits[: m * self.head.shape[0]].view(m, -1))

    def read(self, layer, kv_bytes):
        torch.amax(self.cache[layer, : kv_bytes // 4].view(64, -1), 1)


def step_ms(steps, m, context):
    kv_bytes = int(m * context) * steps.kv // 256 * 256
    whole = sustained_ms(capture(lambda: steps.products(m, True, kv_bytes)), 0.6)
    reads = sustained_ms(capture(lambda: [steps.read(layer, kv_bytes) for layer in range(steps.layers)]), 0.2)
    ms = whole - reads + steps.layers * kv_bytes / READS * 1e3
    print(f"{m:4} behind {context:.0f}: {whole:.3f} ms, reads {reads:.3f} ({steps.layers * kv_bytes / reads / 1e9:.2f} TB/s), at {READS / 1e12:.2f} {ms:.3f}", flush=True)
    return ms


def sustained(model):
    lengths = json.loads((pathlib.Path(__file__).parent.parent / "bench" / "peers.json").read_text())["requests"]
    work = list(zip(lengths["prompt"], lengths["output"]))
    alive = [[tokens + step for tokens, out in work if step < out] for step in range(1, max(lengths["output"]))]  # the first token comes with the prompt
    context = {len(tokens): sum(tokens) / len(tokens) for tokens in alive}
    steps = Steps(model)
    for m in TOKENS:
        if m <= DECODES:
            step_ms(steps, m, CONTEXT)
    ms = {m: step_ms(steps, m, context[min(context, key=lambda n: abs(n - m))]) for m in range(8, 257, 8)}
    chunk = sustained_ms(capture(lambda: steps.products(8192, False, 0)), 2)
    prompts = sum(lengths["prompt"]) / 8192 * chunk / 1e3
    decodes = 0.0
    for tokens in alive:
        n = len(tokens)
        low, high = max(8, n // 8 * 8), max(8, -(-n // 8) * 8)
        decodes += (ms[low] + (ms[high] - ms[low]) * max(0, n - low) / 8) / 1e3
    print(f"{model} 8192: {chunk:.1f} ms", flush=True)
    print(f"{model} {len(work)} requests at once: prompts {prompts:.2f} s, steps {decodes:.2f} s, {sum(lengths['output']) / (prompts + decodes):,.0f} tok/s", flush=True)


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    if "--sustained" in sys.argv:
        models = [word for word in sys.argv[1:] if word != "--sustained"] or ["7B"]
        for model in models:
            if model not in MODELS:
                sys.exit(f"{model}: want {', '.join(MODELS)}")
        for model in models:
            sustained(model)
        return
    times = {}
    for name, (n, k) in SHAPES.items():
        if not any(name.startswith(chosen) for chosen in sys.argv[1:] or [""]):
            continue
        times[name] = measure(name, n, k, False)
        if name.endswith((" o", " down")):
            times[name + " +="] = measure(name + " +=", n, k, True)
    for model in MODELS:
        if all(name in times for name in SHAPES if name.startswith(model + " ")):
            print_steps(model, times)


if __name__ == "__main__":
    main()
