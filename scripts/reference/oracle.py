"""transformers in float32: the weights are the checkpoint's bfloat16, everything is computed without rounding to it."""
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


def layer_differences(model, ids: list, path: Path) -> list:
    """|Δ| / |reference| of each layer's hidden states, whose file `pagoda score --hidden` wrote."""
    states = hidden_states(model, ids)
    got = numpy.fromfile(path, "<f4")
    if got.size != sum(s.numel() for s in states):
        raise ValueError(f"{path}: {got.size} values, expected {len(states)} states of {tuple(states[0].shape)}")
    differences = []
    for want, have in zip(states, torch.from_numpy(got).to(model.device).view(len(states), *states[0].shape)):
        differences.append(((have - want).norm() / want.norm()).item())
    return differences


@torch.no_grad()
def entropy(model, ids: list) -> float:
    """Nats of attention in the mean over layers, heads and the later half of the positions."""
    weights = model(torch.tensor([ids], device=model.device), use_cache=False, output_attentions=True).attentions
    late = torch.stack([w[0, :, len(ids) // 2:] for w in weights]).clamp_min(1e-20)
    return -(late * late.log()).sum(-1).mean().item()
