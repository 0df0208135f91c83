"""Qwen2 in PyTorch, in one page: teacher and student are both this model.

Parameters have Hugging Face's names, so a state_dict is a checkpoint. Tokens lie in one flat row,
[tokens, hidden]; what a token may attend to is the caller's business (`attend`).
"""
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


@dataclass
class Shape:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 2048

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @staticmethod
    def read(path: Path) -> "Shape":
        config = json.loads(path.read_text())
        return Shape(**{k: config[k] for k in Shape.__dataclass_fields__})

    def dict(self) -> dict:
        return asdict(self)


def rotate(x, cos, sin):
    """RoPE on [tokens, heads, head_dim]; dimension i pairs with i + head_dim / 2."""
    a, b = x.chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = s.num_attention_heads, s.num_key_value_heads, s.head_dim
        self.q_proj = nn.Linear(s.hidden_size, s.hidden_size)
        self.k_proj = nn.Linear(s.hidden_size, self.kv_heads * s.head_dim)
        self.v_proj = nn.Linear(s.hidden_size, self.kv_heads * s.head_dim)
        self.o_proj = nn.Linear(s.hidden_size, s.hidden_size, bias=False)

    def forward(self, x, cos, sin, attend):
        n = x.shape[0]
        q = rotate(self.q_proj(x).view(n, self.heads, self.head_dim), cos, sin)
        k = rotate(self.k_proj(x).view(n, self.kv_heads, self.head_dim), cos, sin)
        v = self.v_proj(x).view(n, self.kv_heads, self.head_dim)
        return self.o_proj(attend(q, k, v).reshape(n, -1))


class MLP(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = nn.RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.mlp = MLP(s)

    def forward(self, x, cos, sin, attend):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.num_hidden_layers))
        self.norm = nn.RMSNorm(s.hidden_size, s.rms_norm_eps)


class Qwen2(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape, self.model = shape, Body(shape)
        half = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        angle = torch.outer(torch.arange(shape.max_position_embeddings).float(), shape.rope_theta ** -half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def rope(self, positions):
        dtype = self.model.norm.weight.dtype
        return self.cos[positions, None].to(dtype), self.sin[positions, None].to(dtype)

    def hidden(self, ids, positions, attend):
        """Final hidden states. attend(layer) gives the attention of a layer: (q, k, v) → [tokens, heads, head_dim]."""
        x = self.model.embed_tokens(ids)
        cos, sin = self.rope(positions)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, attend(i))
        return self.model.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)

    @staticmethod
    def load(directory: Path, dtype=torch.float32) -> "Qwen2":
        model = Qwen2(Shape.read(directory / "config.json"))
        model.load_state_dict(load_file(directory / "model.safetensors"))
        return model.ready("cpu", dtype)

    def ready(self, device, dtype) -> "Qwen2":
        """For inference; RoPE angles stay float32."""
        cos, sin = self.cos, self.sin
        self.to(device, dtype)
        self.cos, self.sin = cos.to(device), sin.to(device)
        return self.eval()


def rows_attention(rows: int):
    """Causal attention within each of `rows` equally long rows of the flat tokens."""
    def attend(q, k, v):
        n, heads, dim = q.shape
        split = lambda x: x.view(rows, n // rows, -1, dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).reshape(n, heads, dim)
    return lambda layer: attend
