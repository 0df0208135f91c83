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


def bf16(t: torch.Tensor) -> torch.Tensor:
    return t.to(torch.bfloat16).to(torch.float32)


def half(t: torch.Tensor) -> torch.Tensor:
    return t.clamp(-65504, 65504).to(torch.float16).to(torch.float32)


# Where an engine rounds between two operations; to what Pagoda rounds there, by device. The residual stream, sums of
# products and logits are float32 everywhere.
PLACES = ("layers' norms", "last norm", "queries", "keys", "values", "attention's weights", "attention's output", "MLP's inner")
KEPT = {
    "cuda": dict.fromkeys(PLACES, half) | {"MLP's inner": lambda t: 64 * half(t / 64)},
    "cpu": {"keys": half, "values": half},  # and what enters products, where the processor multiplies bfloat16
}


@contextmanager
def rounded(model, places: dict):
    """Rounds in the places, each by its function."""
    same = lambda t: t
    at = {name: places.get(name, same) for name in PLACES}
    hooks, module = [], sys.modules[type(model).__module__]
    after = lambda name: lambda _module, _inputs, out: at[name](out)
    before = lambda name: lambda _module, inputs: (at[name](inputs[0]),)
    for layer in model.model.layers:
        for m in (layer.input_layernorm, layer.post_attention_layernorm):
            hooks.append(m.register_forward_hook(after("layers' norms")))
        hooks.append(layer.self_attn.v_proj.register_forward_hook(after("values")))
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(before("attention's output")))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(before("MLP's inner")))
    hooks.append(model.model.norm.register_forward_hook(after("last norm")))
    rotate, attend = module.apply_rotary_pos_emb, module.eager_attention_forward

    def rotated(*args, **kwargs):
        query, key = rotate(*args, **kwargs)
        return at["queries"](query), at["keys"](key)

    def attended(layer, query, key, value, mask, scaling, **_kwargs):
        """Weights are rounded before they are divided by their sum, as in a kernel that has seen a part of the keys."""
        scores = query @ module.repeat_kv(key, layer.num_key_value_groups).transpose(2, 3) * scaling
        if mask is not None:
            scores = scores + mask
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        out = at["attention's weights"](weights) @ module.repeat_kv(value, layer.num_key_value_groups)
        return (out / weights.sum(-1, keepdim=True)).transpose(1, 2).contiguous(), None

    module.apply_rotary_pos_emb = rotated
    if "attention's weights" in places:
        module.eager_attention_forward = attended
    try:
        yield
    finally:
        module.apply_rotary_pos_emb, module.eager_attention_forward = rotate, attend
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def entropy(model, ids: list) -> float:
    """Nats of attention in the mean over layers, heads and the later half of the positions."""
    weights = model(torch.tensor([ids], device=model.device), use_cache=False, output_attentions=True).attentions
    late = torch.stack([w[0, :, len(ids) // 2:] for w in weights]).clamp_min(1e-20)
    return -(late * late.log()).sum(-1).mean().item()
