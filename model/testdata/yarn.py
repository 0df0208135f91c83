#!/usr/bin/env python3
"""Writes yarn.json: inverse RoPE frequencies by transformers' own YaRN code.

    pip install numpy && pip download --no-deps transformers==5.23.0
    unzip transformers-5.23.0-*.whl transformers/modeling_rope_utils.py
    yarn.py transformers/modeling_rope_utils.py > yarn.json

The function is cut out of the file and run with numpy in place of torch, which
it uses for float32 arrays only.
"""
import json
import math
import re
import sys
from types import SimpleNamespace
from typing import Optional

import numpy as np


class Array(np.ndarray):
    def to(self, device=None, dtype=None):
        return np.asarray(self, dtype=dtype or self.dtype).view(Array)

    def __rpow__(self, base):
        return np.power(np.float32(base), np.asarray(self, np.float32)).view(Array)


torch = SimpleNamespace(
    float=np.float32, float32=np.float32, Tensor=Array,
    arange=lambda *a, dtype=np.int64: np.arange(*a, dtype=dtype).view(Array),
    clamp=lambda x, low, high: np.clip(x, np.float32(low), np.float32(high)))

CASES = [
    # name, head_dim, max_position_embeddings, rope parameters
    ("qwen2.5 model card", 128, 32768, dict(factor=4.0, original_max_position_embeddings=32768)),
    ("head 64", 64, 32768, dict(factor=2.5, original_max_position_embeddings=16384)),
    ("betas and mscale", 128, 131072, dict(
        rope_theta=1e4, factor=40, original_max_position_embeddings=4096,
        beta_fast=16, beta_slow=2, mscale=1.0, mscale_all_dim=0.8)),
    ("attention factor, no truncation", 128, 32768, dict(
        rope_theta=5e5, factor=8, original_max_position_embeddings=8192,
        attention_factor=1.25, truncate=False)),
    ("null factor", 96, 65536, dict(factor=None, original_max_position_embeddings=8192)),
]

source = open(sys.argv[1]).read()
scope = {"torch": torch, "math": math, "Optional": Optional}
exec(re.search(r"^def _compute_yarn_parameters\(.*?(?=^def )", source, re.S | re.M).group(0), scope)
out = []
for name, head_dim, positions, rope in CASES:
    rope = {"rope_type": "yarn", "rope_theta": 1e6, **rope}
    config = SimpleNamespace(head_dim=head_dim, hidden_size=head_dim * 4, num_attention_heads=4,
                             max_position_embeddings=positions, rope_parameters=rope,
                             standardize_rope_params=lambda: None)
    freq, scale = scope["_compute_yarn_parameters"](config)
    out.append({"name": name, "head_dim": head_dim, "max_position_embeddings": positions, "rope": rope,
                "attention_factor": scale, "inv_freq": [float(f"{x:.9g}") for x in freq]})
print("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]")
