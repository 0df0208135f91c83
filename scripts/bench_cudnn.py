#!/usr/bin/env python3
"""Times cuDNN's causal attention (torch.nn.functional.scaled_dot_product_attention, float16) on the
heads of Qwen2.5, to compare with `kernels-test time prefill`. Keys of KV heads are repeated for the
query heads. Prints TFLOP/s for each number of tokens."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS = ((28, 128), (12, 128), (14, 64))  # heads, dims: 7B, 1.5B, 0.5B
TOKENS = (2048, 8192, 30000)


def median_ms(attend, rounds=5, each=3):
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(each):
            attend()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / each)
    return sorted(times)[rounds // 2]


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for heads, dims in HEADS:
        line = f"{heads} heads of {dims}"
        for tokens in TOKENS:
            q, k, v = (torch.randn(1, heads, tokens, dims, device="cuda", dtype=torch.float16) for _ in range(3))
            attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                attend(), attend()
                flops = 2.0 * dims * heads * tokens * (tokens + 1)
                line += f" | {tokens}: {flops / median_ms(attend) / 1e9:.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
