"""Models of equal shape and random weights, as Pagoda and as llama.cpp read them.

Only the standard library is needed.
"""

import gzip
import json
import os
import random
import struct

QWEN_TOKENIZER = os.path.join(os.path.dirname(__file__), "../testdata/tokenizer/qwen2.5-tokenizer.json.gz")
SHAPES = {
    "qwen2.5-0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                         num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
    "qwen2.5-1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                         num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
}
F32, BF16 = 0, 30  # GGML types
U32, I32, F32_VALUE, STRING, ARRAY = 4, 5, 6, 8, 9  # GGUF types


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
    return struct.pack("<Q", len(s.encode())) + s.encode()


def packed(kind, value):
    """A GGUF value; a list's kind is that of its elements."""
    if isinstance(value, list):
        return struct.pack("<IQ", kind, len(value)) + b"".join(packed(kind, v) for v in value)
    return text(value) if kind == STRING else struct.pack({U32: "<I", I32: "<i", F32_VALUE: "<f"}[kind], value)


def vocabulary(c, tokenizer):
    """The GGUF keys of a tokenizer.json of Qwen2's kind; None: there is no tokenizer."""
    if tokenizer is None:
        return [("tokenizer.ggml.model", STRING, "none")]
    normal, control, user, unused = 1, 3, 4, 5
    tokens = [f"[PAD{i}]" for i in range(c["vocab_size"])]
    kinds = [unused] * len(tokens)
    for spelling, i in tokenizer["model"]["vocab"].items():
        tokens[i], kinds[i] = spelling, normal
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], control if added["special"] else user
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    return [
        ("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, "qwen2"),
        ("tokenizer.ggml.tokens", STRING, tokens), ("tokenizer.ggml.token_type", I32, kinds),
        ("tokenizer.ggml.merges", STRING, merges),
    ]


def metadata(c, tokenizer):
    u32, f32, string = U32, F32_VALUE, STRING
    values = [
        ("general.architecture", string, "qwen2"), ("general.file_type", u32, 32),
        ("qwen2.block_count", u32, c["num_hidden_layers"]), ("qwen2.context_length", u32, 4096),
        ("qwen2.embedding_length", u32, c["hidden_size"]), ("qwen2.feed_forward_length", u32, c["intermediate_size"]),
        ("qwen2.attention.head_count", u32, c["num_attention_heads"]),
        ("qwen2.attention.head_count_kv", u32, c["num_key_value_heads"]),
        ("qwen2.attention.layer_norm_rms_epsilon", f32, 1e-6), ("qwen2.rope.freq_base", f32, 1e6),
        ("qwen2.vocab_size", u32, c["vocab_size"]), *vocabulary(c, tokenizer),
    ]
    out = [struct.pack("<Q", len(values))]
    for key, kind, value in values:
        out.append(text(key) + struct.pack("<I", ARRAY if isinstance(value, list) else kind) + packed(kind, value))
    return b"".join(out)


def noise():
    """A megabyte of bfloat16 around ±0.02."""
    rng = random.Random(1)
    return b"".join(struct.pack("<H", rng.getrandbits(1) << 15 | 0x3C00 | rng.getrandbits(8)) for _ in range(1 << 19))


def fill(f, size, pattern):
    while size > 0:
        size -= f.write(pattern[:size])


def write_gguf(path, c, tokenizer=None):
    """A model of random weights; norms are 1, biases 0."""
    pad = lambda n: -n % 32
    infos, blobs, offset = [], [], 0
    for name, dims, kind in tensors_of(c):
        size = (4 if kind == F32 else 2)
        for d in dims:
            size *= d
        infos.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        blobs.append((name, kind, size))
        offset += size + pad(size)
    matrix, one, zero = noise(), struct.pack("<f", 1.0) * 4096, bytes(1 << 14)
    with open(path + ".new", "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQ", 3, len(infos)) + metadata(c, tokenizer) + b"".join(infos))
        f.write(b"\0" * pad(f.tell()))
        for name, kind, size in blobs:
            fill(f, size, matrix if kind == BF16 else zero if name.endswith("bias") else one)
            f.write(b"\0" * pad(size))
    os.rename(path + ".new", path)


HF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name):
    if name in HF_NAMES:
        return HF_NAMES[name]
    _, layer, part, what = name.split(".")
    return f"model.layers.{layer}.{HF_NAMES[part]}.{what}"


def write_checkpoint(directory, c, tokenizer_json):
    """The same model as a directory of Hugging Face's kind, all of it bfloat16."""
    os.makedirs(directory, exist_ok=True)
    header, order, offset = {}, [], 0
    for name, dims, kind in tensors_of(c):
        size = 2
        for d in dims:
            size *= d
        header[hf_name(name)] = {"dtype": "BF16", "shape": dims[::-1], "data_offsets": [offset, offset + size]}
        order.append((name, kind, size))
        offset += size
    packed_header = json.dumps(header).encode()
    packed_header += b" " * (-len(packed_header) % 8)
    matrix, one, zero = noise(), b"\x80\x3f" * 4096, bytes(1 << 13)
    with open(f"{directory}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(packed_header)) + packed_header)
        for name, kind, size in order:
            fill(f, size, matrix if kind == BF16 else zero if name.endswith("bias") else one)
    with open(f"{directory}/tokenizer.json", "wb") as f:
        f.write(tokenizer_json)
    config = dict(c, architectures=["Qwen2ForCausalLM"], model_type="qwen2", torch_dtype="bfloat16", hidden_act="silu",
                  max_position_embeddings=4096, rms_norm_eps=1e-6, rope_theta=1e6, eos_token_id=c["vocab_size"] - 1)
    with open(f"{directory}/config.json", "w") as f:  # last: a directory with it is complete
        json.dump(config, f)


def with_text(work, name):
    """Makes, once, the shape with Qwen2.5's tokenizer for both; returns directory and GGUF."""
    directory, gguf = f"{work}/{name}", f"{work}/{name}-text-bf16.gguf"
    with gzip.open(QWEN_TOKENIZER) as f:
        tokenizer_json = f.read()
    if not os.path.exists(f"{directory}/config.json"):
        write_checkpoint(directory, SHAPES[name], tokenizer_json)
    if not os.path.exists(gguf):
        write_gguf(gguf, SHAPES[name], json.loads(tokenizer_json))
    return directory, gguf
