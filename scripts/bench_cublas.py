#!/usr/bin/env python3
"""Times cuBLASLt (torch, float16) on the products of Qwen2.5, to compare with `kernels-test time
sm90`: graphs of products with weights in turn, so that no cache holds them. A line for outputs in
float16, and, of o and down, one for what the engine has there: sums added to float32. Prints µs
and TFLOP/s for each number of tokens. Arguments choose lines by how they begin."""
import sys
import time

import torch

SHAPES = {
    "7B qkv": (4608, 3584), "7B o": (3584, 3584), "7B gate_up": (37888, 3584), "7B down": (3584, 18944),
    "1.5B qkv": (2048, 1536), "1.5B o": (1536, 1536), "1.5B gate_up": (17920, 1536), "1.5B down": (1536, 8960),
    "0.5B qkv": (1152, 896), "0.5B o": (896, 896), "0.5B gate_up": (9728, 896), "0.5B down": (896, 4864),
}
TOKENS = (128, 256, 512, 1024, 2048, 8192)


def noise(rows, cols, scale=1.0):
    return ((torch.rand(rows, cols, device="cuda") * 2 - 1) * scale).half()


def median_us(product, count, rest, replays=5):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(count):
            product(i)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(count):
                product(i)
        times = []
        time.sleep(rest)  # where the card's power decides, what ran before counts
        for _ in range(replays + 2):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            stop.record(stream)
            stop.synchronize()
            times.append(start.elapsed_time(stop) * 1e3 / count)
    return sorted(times[2:])[replays // 2]


def measure(name, n, k, adds):
    weights = [noise(n, k, (3 / k) ** 0.5) for _ in range(max(2, min(16, int(400e6 / (2 * n * k)) + 1)))]
    line = f"{name:14}"
    for m in TOKENS:
        x, out = noise(m, k), torch.zeros(m, n, device="cuda", dtype=torch.float32 if adds else torch.float16)

        def product(i):
            w = weights[i % len(weights)].t()
            torch.addmm(out, x, w, torch.float32, out=out) if adds else torch.mm(x, w, out=out)

        us = median_us(product, max(len(weights), 8) if m <= 4096 else 4, 0.02 if m >= 256 else 0)
        line += f" | {m}: {us:.1f} ({2 * m * n * k / us / 1e6:.0f})"
    print(line, flush=True)


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for name, (n, k) in SHAPES.items():
        if not any(name.startswith(model) for model in sys.argv[1:] or [""]):
            continue
        measure(name, n, k, False)
        if name.endswith((" o", " down")):
            measure(name + " +=", n, k, True)


if __name__ == "__main__":
    main()
