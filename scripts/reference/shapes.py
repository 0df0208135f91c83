"""Checkpoints of true shape with random weights, as Hugging Face publishes them.

Linear layers have a deviation of 1/sqrt(fan-in), norms are around 1, each key head has two large biases on its
slowest rotations, as Qwen2.5's have, and the last norm makes logits of a deviation of LOGIT_DEVIATION, between a
flat distribution and one that a single id takes whole. A random model multiplies differences where a trained one
does not: with sharper attention (queries and keys 1.25 times as large, or a bias of 40) rounding transformers' own
activations to bfloat16 is already beyond the tolerance. The columns `format` of the table say what that rounding
does; a trained model, whose attention is sharp, is the other half of the comparison.
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

LARGE_BIAS = 10.0
LOGIT_DEVIATION = 2.25
SHARD_BYTES = 4 << 30


class Draw:
    """Normal tensors in bfloat16, the same for a seed and a kind of device."""

    def __init__(self, device: str, seed: int):
        self.device, self.generator = device, torch.Generator(device)
        self.generator.manual_seed(seed)

    def normal(self, std: float, *shape: int, mean: float = 0.0) -> torch.Tensor:
        values = torch.empty(shape, device=self.device).normal_(mean, std, generator=self.generator)
        return values.to(torch.bfloat16)

    def linear(self, out: int, width: int) -> torch.Tensor:
        return self.normal(width**-0.5, out, width)

    def key_bias(self, heads: int, dim: int) -> torch.Tensor:
        bias = self.normal(0.5, heads, dim)
        bias[:, dim // 2 - 1] = LARGE_BIAS  # the two halves of the slowest pair
        bias[:, dim - 1] = -LARGE_BIAS
        return bias.flatten()


def tensors(config: dict, draw: Draw):
    """Names and tensors, in the order in which they are stored."""
    hidden, inter, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = hidden // heads
    yield "model.embed_tokens.weight", draw.linear(vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        yield p + "input_layernorm.weight", draw.normal(0.1, hidden, mean=1.0)
        yield p + "self_attn.q_proj.weight", draw.linear(heads * dim, hidden)
        yield p + "self_attn.q_proj.bias", draw.normal(0.5, heads * dim)
        yield p + "self_attn.k_proj.weight", draw.linear(kv_heads * dim, hidden)
        yield p + "self_attn.k_proj.bias", draw.key_bias(kv_heads, dim)
        yield p + "self_attn.v_proj.weight", draw.linear(kv_heads * dim, hidden)
        yield p + "self_attn.v_proj.bias", draw.normal(0.1, kv_heads * dim)
        yield p + "self_attn.o_proj.weight", draw.linear(hidden, heads * dim)
        yield p + "post_attention_layernorm.weight", draw.normal(0.1, hidden, mean=1.0)
        yield p + "mlp.gate_proj.weight", draw.linear(inter, hidden)
        yield p + "mlp.up_proj.weight", draw.linear(inter, hidden)
        yield p + "mlp.down_proj.weight", draw.linear(hidden, inter)
    yield "model.norm.weight", draw.normal(0.1 * LOGIT_DEVIATION, hidden, mean=LOGIT_DEVIATION)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", draw.linear(vocab, hidden)


def make(directory: Path, config: dict, device: str, seed: int, shard_bytes: int = SHARD_BYTES) -> None:
    """Write config.json and the weights: model.safetensors, or shards with an index when they do not fit in one."""
    directory.mkdir(parents=True, exist_ok=True)
    shard, size, total = {}, 0, 0
    files, names = [], []  # of each shard

    def flush() -> None:
        files.append(directory / f"part-{len(files)}")
        save_file(shard, files[-1], {"format": "pt"})
        names.append(list(shard))
        shard.clear()

    for name, tensor in tensors(config, Draw(device, seed)):
        length = tensor.numel() * tensor.element_size()
        if shard and size + length > shard_bytes:
            flush()
            size = 0
        shard[name] = tensor.cpu()
        size, total = size + length, total + length
    flush()
    if len(files) == 1:
        files[0].rename(directory / "model.safetensors")
    else:
        weight_map = {}
        for i, file in enumerate(files):
            final = f"model-{i + 1:05}-of-{len(files):05}.safetensors"
            file.rename(directory / final)
            weight_map |= dict.fromkeys(names[i], final)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    # Last: a directory with config.json is complete.
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
