#!/usr/bin/env python3
"""Write tiny random checkpoints and the logits that transformers computes with them.

    tiny.py OUTPUT_DIR

tiny-tied: Qwen2, tied embeddings, one file. tiny-yarn: Qwen2, untied, YaRN, two shards with an
index. tiny-llama: no biases, untied, Llama 3's RoPE scaling. tiny-qwen3: norms of query and key
heads, heads wider than hidden / heads. Each directory gets config.json, bf16 safetensors and golden.json: two sequences and the logits of all
their positions. The weights are wide enough that attention is far from uniform, biases and norms
far from neutral, so that a mistake anywhere moves the logits.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from reference import COMMAND, COMPUTE, VERSIONS, compact, load, logits, write

COMMON = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", "hidden_act": "silu",
    "num_hidden_layers": 2, "use_sliding_window": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
}
TIED = COMMON | {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 112, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True,
}
YARN = COMMON | {
    "vocab_size": 96, "hidden_size": 96, "intermediate_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}

LLAMA = COMMON | {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 64},
}
QWEN3 = COMMON | {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False,
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
}


def weights(config: dict, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    hidden, inter = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]

    def normal(std: float, *shape: int, mean: float = 0.0) -> torch.Tensor:
        return torch.tensor(mean + std * rng.standard_normal(shape)).to(torch.bfloat16)

    def linear(out: int, width: int, gain: float = 1.0) -> torch.Tensor:
        return normal(gain / width**0.5, out, width)

    w = {"model.embed_tokens.weight": normal(0.5, config["vocab_size"], hidden),
         "model.norm.weight": normal(0.2, hidden, mean=1.0)}
    if not config["tie_word_embeddings"]:
        w["lm_head.weight"] = linear(config["vocab_size"], hidden, 3.0)
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        w |= {
            p + "input_layernorm.weight": normal(0.2, hidden, mean=1.0),
            p + "self_attn.q_proj.weight": linear(queries, hidden, 1.5),
            p + "self_attn.q_proj.bias": normal(0.5, queries),
            p + "self_attn.k_proj.weight": linear(kv, hidden, 1.5),
            p + "self_attn.k_proj.bias": normal(0.5, kv),
            p + "self_attn.v_proj.weight": linear(kv, hidden),
            p + "self_attn.v_proj.bias": normal(0.5, kv),
            p + "self_attn.o_proj.weight": linear(hidden, queries),
            p + "post_attention_layernorm.weight": normal(0.2, hidden, mean=1.0),
            p + "mlp.gate_proj.weight": linear(inter, hidden),
            p + "mlp.up_proj.weight": linear(inter, hidden),
            p + "mlp.down_proj.weight": linear(hidden, inter),
        }
        if config["model_type"] != "qwen2":
            for projection in "qkv":
                del w[p + f"self_attn.{projection}_proj.bias"]
        if config["model_type"] == "qwen3":
            w |= {p + f"self_attn.{x}_norm.weight": normal(0.5, head, mean=1.0) for x in "qk"}
    return w


def save(directory: Path, config: dict, w: dict, shards: int) -> None:
    """One model.safetensors, or as many shards with an index, layers kept together."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    metadata = {"format": "pt"}
    if shards == 1:
        save_file(w, directory / "model.safetensors", metadata)
        return
    names, weight_map = sorted(w), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        save_file({name: w[name] for name in part}, directory / file, metadata)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(2 * t.numel() for t in w.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make(directory: Path, config: dict, shards: int, lengths: tuple, seed: int) -> None:
    save(directory, config, weights(config, seed), shards)
    model, rng = load(directory), np.random.default_rng(seed + 1)
    sequences = []
    for length in lengths:
        ids = rng.integers(0, config["vocab_size"], length).tolist()
        rows = logits(model, ids)
        sequences.append({"ids": compact(ids), "logits": [compact([round(v, 4) for v in r.tolist()]) for r in rows]})
        print(f"{directory.name}: {length} tokens, logits {rows.min():.2f} to {rows.max():.2f}, std {rows.std():.2f}")
    write(directory / "golden.json",
          {"command": COMMAND, "compute": COMPUTE, "versions": VERSIONS, "sequences": sequences})


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=Path)
    out = ap.parse_args().out
    make(out / "tiny-tied", TIED, shards=1, lengths=(1, 25), seed=1)
    make(out / "tiny-llama", LLAMA, shards=1, lengths=(3, 90), seed=5)
    make(out / "tiny-qwen3", QWEN3, shards=1, lengths=(1, 40), seed=7)
    make(out / "tiny-yarn", YARN, shards=2, lengths=(7, 90), seed=3)  # 90: beyond the original 64


if __name__ == "__main__":
    main()
