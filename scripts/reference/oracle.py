"""transformers in float32: the weights are the checkpoint's bfloat16, everything is computed without rounding to it."""
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_float32_matmul_precision("highest")  # no TF32
torch.backends.cudnn.allow_tf32 = False


def load(directory: Path, device: str):
    """The model on the device, read tensor by tensor: a 7B takes 30 GB there and nothing here."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(directory), dtype=torch.float32, attn_implementation="eager").eval()
    missing = dict(model.named_parameters())  # a tied head is not among them
    with torch.no_grad():
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, framework="pt", device=device) as file:
                for name in file.keys():
                    missing.pop(name).copy_(file.get_tensor(name))
    if missing:
        raise ValueError(f"{directory}: no tensors {', '.join(sorted(missing))}")
    return model


@torch.no_grad()
def score(model, sequence: dict) -> dict:
    """What `pagoda score` prints about the ids of a sequence, teacher-forced and without a KV cache."""
    ids = torch.tensor([sequence["ids"]], device=model.device)
    rows = model(ids, use_cache=False).logits[0, :-1]
    top = rows.topk(2)
    logprobs = rows.gather(1, ids[0, 1:, None])[:, 0] - rows.logsumexp(-1)
    return {"id": sequence["id"], "prompt_tokens": sequence["prompt_tokens"], "ids": sequence["ids"],
            "logprobs": logprobs.tolist(), "argmax": top.indices[:, 0].tolist(),
            "gap": (top.values[:, 0] - top.values[:, 1]).tolist()}


@torch.no_grad()
def hidden_states(model, ids: list) -> list:
    """The residual stream: what enters the first layer, and what each layer leaves, [tokens, hidden] each."""
    states, hooks = [], []
    for module in (model.model.embed_tokens, *model.model.layers):
        hooks.append(module.register_forward_hook(
            lambda _module, _inputs, out: states.append((out if torch.is_tensor(out) else out[0]).reshape(len(ids), -1))))
    model(torch.tensor([ids], device=model.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return states


def relative(want: list, got: list) -> list:
    """|Δ| / |want| of each layer."""
    return [((b - a).norm() / a.norm()).item() for a, b in zip(want, got, strict=True)]


def stored(path: Path, like: list) -> list:
    """Hidden states that `pagoda score --hidden` wrote."""
    values = numpy.fromfile(path, "<f4")
    if values.size != sum(s.numel() for s in like):
        raise ValueError(f"{path}: {values.size} values, expected {len(like)} states of {tuple(like[0].shape)}")
    return list(torch.from_numpy(values).to(like[0].device).view(len(like), *like[0].shape))


@contextmanager
def rounded(model):
    """Rounds to bfloat16 what an engine keeps in it between two operations: norms, queries, keys, values, what
    attention gives, and the MLP's inner activations. The residual stream and the logits stay in float32."""
    hooks, module = [], sys.modules[type(model).__module__]
    norm = lambda _module, _inputs, out: bf16(out)
    inner = lambda _module, inputs: (bf16(inputs[0]),)
    for layer in model.model.layers:
        for m in (layer.input_layernorm, layer.post_attention_layernorm, layer.self_attn.v_proj):
            hooks.append(m.register_forward_hook(norm))
        for m in (layer.self_attn.o_proj, layer.mlp.down_proj):
            hooks.append(m.register_forward_pre_hook(inner))
    hooks.append(model.model.norm.register_forward_hook(norm))
    rotate = module.apply_rotary_pos_emb
    module.apply_rotary_pos_emb = lambda *args, **kwargs: tuple(map(bf16, rotate(*args, **kwargs)))
    try:
        yield
    finally:
        module.apply_rotary_pos_emb = rotate
        for hook in hooks:
            hook.remove()


def bf16(t: torch.Tensor) -> torch.Tensor:
    return t.to(torch.bfloat16).to(torch.float32)


@torch.no_grad()
def entropy(model, ids: list) -> float:
    """Nats of attention in the mean over layers, heads and the later half of the positions."""
    weights = model(torch.tensor([ids], device=model.device), use_cache=False, output_attentions=True).attentions
    late = torch.stack([w[0, :, len(ids) // 2:] for w in weights]).clamp_min(1e-20)
    return -(late * late.log()).sum(-1).mean().item()
