"""Times Pagoda and llama.cpp in turn on models of equal shape and random weights.

Each round runs Pagoda (whose probes of read bandwidth and multiply-adds come with it), then
llama.cpp, bfloat16 and 8-bit; what is printed are medians, and the median of the rounds' ratios,
which a machine whose speed drifts moves less. Only the standard library is needed.
"""

import argparse
import json
import os
import random
import re
import statistics
import struct
import subprocess
import sys

BATCHES = [1, 8, 16]
PROMPT, CONTEXT, OUTPUT = 512, 16, 48
ROWS = [f"decode, batch {b}" for b in BATCHES] + [f"prefill, {PROMPT} tokens"]

SHAPES = {
    "qwen2.5-0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                         num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
    "qwen2.5-1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                         num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
}
F32, BF16 = 0, 30  # GGML types


def shape_of(model):
    if model in SHAPES:
        return SHAPES[model]
    with open(os.path.join(model, "config.json")) as f:
        return json.load(f)


def tensors_of(c):
    """The tensors of a Qwen2 GGUF: name, dimensions (innermost first), type."""
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    width = c.get("head_dim") or hidden // heads
    yield "token_embd.weight", [hidden, c["vocab_size"]], BF16
    yield "output_norm.weight", [hidden], F32
    if not c.get("tie_word_embeddings"):
        yield "output.weight", [hidden, c["vocab_size"]], BF16
    for i in range(c["num_hidden_layers"]):
        for name, dims in [("attn_norm", [hidden]), ("ffn_norm", [hidden])]:
            yield f"blk.{i}.{name}.weight", dims, F32
        for name, rows in [("attn_q", heads * width), ("attn_k", kv_heads * width), ("attn_v", kv_heads * width)]:
            yield f"blk.{i}.{name}.weight", [hidden, rows], BF16
            yield f"blk.{i}.{name}.bias", [rows], F32
        yield f"blk.{i}.attn_output.weight", [heads * width, hidden], BF16
        yield f"blk.{i}.ffn_gate.weight", [hidden, inner], BF16
        yield f"blk.{i}.ffn_up.weight", [hidden, inner], BF16
        yield f"blk.{i}.ffn_down.weight", [inner, hidden], BF16


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def metadata(c):
    u32, f32, string = 4, 6, 8
    values = [
        ("general.architecture", string, "qwen2"), ("general.file_type", u32, 32), ("tokenizer.ggml.model", string, "none"),
        ("qwen2.block_count", u32, c["num_hidden_layers"]), ("qwen2.context_length", u32, 4096),
        ("qwen2.embedding_length", u32, c["hidden_size"]), ("qwen2.feed_forward_length", u32, c["intermediate_size"]),
        ("qwen2.attention.head_count", u32, c["num_attention_heads"]),
        ("qwen2.attention.head_count_kv", u32, c["num_key_value_heads"]),
        ("qwen2.attention.layer_norm_rms_epsilon", f32, 1e-6), ("qwen2.rope.freq_base", f32, 1e6),
        ("qwen2.vocab_size", u32, c["vocab_size"]),
    ]
    out = [struct.pack("<Q", len(values))]
    for key, kind, value in values:
        packed = text(value) if kind == string else struct.pack("<I" if kind == u32 else "<f", value)
        out.append(text(key) + struct.pack("<I", kind) + packed)
    return b"".join(out)


def write_gguf(path, c):
    """A model of random weights around ±0.02; norms are 1, biases 0."""
    pad = lambda n: -n % 32
    infos, blobs, offset = [], [], 0
    for name, dims, kind in tensors_of(c):
        size = (4 if kind == F32 else 2)
        for d in dims:
            size *= d
        infos.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        blobs.append((name, kind, size))
        offset += size + pad(size)
    rng = random.Random(1)
    noise = b"".join(struct.pack("<H", rng.getrandbits(1) << 15 | 0x3C00 | rng.getrandbits(8)) for _ in range(1 << 19))
    one = struct.pack("<f", 1.0)
    with open(path + ".new", "wb") as f:
        meta = metadata(c)
        f.write(b"GGUF" + struct.pack("<IQ", 3, len(infos)) + meta + b"".join(infos))
        f.write(b"\0" * pad(f.tell()))
        for name, kind, size in blobs:
            left = size
            while left > 0:
                n = min(left, len(noise))
                if kind == BF16:
                    f.write(noise[:n])
                else:
                    f.write((b"\0\0\0\0" if name.endswith("bias") else one) * (n // 4))
                left -= n
            f.write(b"\0" * pad(size))
    os.rename(path + ".new", path)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench-peers: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def pagoda(model, threads, extra):
    """Tokens a second by row, and the line of probes."""
    out = run(["bin/pagoda", "bench", "roofline", model, "--load-format", "dummy", "--repeats", "1", "--quiet",
               "--threads", str(threads), "--batch-sizes", ",".join(map(str, BATCHES)), "--prompt-tokens", str(PROMPT),
               "--output-tokens", str(OUTPUT), "--max-num-seqs", "16", *extra])
    rates = {}
    for row in ROWS:
        found = re.search(re.escape(row) + r"\s+([\d.]+)", out)
        if not found:
            sys.exit(f"bench-peers: no row {row!r} in:\n{out}")
        rates[row] = float(found[1])
    return rates, next((line for line in out.splitlines() if line.startswith("probed")), "")


def llama(peer, gguf, threads):
    out = run([f"{peer}/llama-batched-bench", "-m", gguf, "-t", str(threads), "-c", "2048", "-npp", str(CONTEXT),
               "-ntg", str(OUTPUT), "-npl", ",".join(map(str, BATCHES)), "--output-format", "jsonl"])
    rates = {}
    for line in out.splitlines():
        if line.startswith("{"):
            r = json.loads(line)
            rates[f"decode, batch {r['pl']}"] = r["speed_tg"]
    out = run([f"{peer}/llama-bench", "-m", gguf, "-t", str(threads), "-p", str(PROMPT), "-n", "0", "-r", "1", "-o", "json"])
    rates[ROWS[-1]] = json.loads(out)[0]["avg_ts"]
    return rates


def compare(o, model):
    os.makedirs(o.work, exist_ok=True)
    name = os.path.basename(os.path.normpath(model))
    gguf, q8 = f"{o.work}/{name}-bf16.gguf", f"{o.work}/{name}-q8_0.gguf"
    if not os.path.exists(gguf):
        write_gguf(gguf, shape_of(model))
    if not os.path.exists(q8):
        run([f"{o.peer}/llama-quantize", gguf, q8, "q8_0", str(o.threads)])
    kinds = [("bfloat16", gguf, []), ("int8 : q8_0", q8, ["--quantization", "int8"])]
    ours, theirs = {k[0]: [] for k in kinds}, {k[0]: [] for k in kinds}
    for _ in range(o.repeats):
        for kind, path, extra in kinds:
            rates, probes = pagoda(model, o.threads, extra)
            print(f"{name} {kind}: {probes}", flush=True)
            ours[kind].append(rates)
            theirs[kind].append(llama(o.peer, path, o.threads))
    print(f"\n{name}, {o.threads} threads, medians of {o.repeats}\n{'':34}{'Pagoda':>9}{'llama.cpp':>11}{'ratio':>8}")
    for kind, _, _ in kinds:
        for row in ROWS:
            a, b = [r[row] for r in ours[kind]], [r[row] for r in theirs[kind]]
            ratio = statistics.median(x / y for x, y in zip(a, b))
            print(f"{kind + ', ' + row:34}{statistics.median(a):9.1f}{statistics.median(b):11.1f}{ratio:8.2f}")
    print(flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--peer", required=True, help="directory of llama.cpp's binaries")
    p.add_argument("--work", required=True, help="directory for model files")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("models", nargs="+")
    o = p.parse_args()
    for model in o.models:
        compare(o, model)


if __name__ == "__main__":
    main()
