#!/usr/bin/env python3
"""Write golden greedy continuations of SmolLM2 as a Qwen2 checkpoint.

    smollm2.py MODEL_DIR OUTPUT.json

For each prompt: its text as rendered, its ids, NEW_TOKENS greedy ids (end-of-sequence tokens do not
stop it), and for each generated position the TOP likeliest ids with logits, log(sum(exp(logits)))
and the gap between the first two: a run in other arithmetic may leave the greedy path where that
gap is small. One prompt has the same for every position of the prompt.
"""
import argparse
import hashlib
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from prompts import PROMPTS
from reference import COMMAND, COMPUTE, VERSIONS, compact, load, logits, write

NEW_TOKENS = 56
TOP = 5


def positions(rows: torch.Tensor) -> list:
    top = rows.topk(TOP)
    sums = rows.double().logsumexp(-1)
    return [compact({"ids": ids.tolist(), "logits": [round(v, 4) for v in values.tolist()],
                     "logsumexp": round(total.item(), 4), "gap": round((values[0] - values[1]).item(), 5)})
            for ids, values, total in zip(top.indices, top.values, sums)]


@torch.no_grad()
def greedy(model, ids: list) -> list:
    """Greedy ids with a KV cache, one token a step."""
    out, cache, step = [], None, torch.tensor([ids])
    while len(out) < NEW_TOKENS:
        result = model(step, past_key_values=cache, use_cache=True)
        out.append(result.logits[0, -1].argmax().item())
        cache, step = result.past_key_values, torch.tensor([out[-1:]])
    return out


def golden(model, tokenizer, prompt: dict) -> dict:
    text = prompt.get("text")
    if text is None:
        text = tokenizer.apply_chat_template(prompt["messages"], tokenize=False, add_generation_prompt=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    out = greedy(model, ids)
    rows = logits(model, ids + out[:-1])
    generated = rows[len(ids) - 1:]
    # The same path with and without the cache, or the reference itself is in doubt.
    assert generated.argmax(-1).tolist() == out, prompt["name"]
    entry = {"name": prompt["name"]}
    if "messages" in prompt:
        entry["messages"] = [compact(m) for m in prompt["messages"]]
    entry |= {"text": text, "ids": compact(ids), "greedy_ids": compact(out),
              "greedy_text": tokenizer.decode(out, skip_special_tokens=False),
              "generated": positions(generated)}
    if prompt.get("all_positions"):
        entry["prompt"] = positions(rows[:len(ids)])
    print(f"{prompt['name']}: {len(ids)} + {len(out)} tokens, smallest gap "
          f"{min(p.value['gap'] for p in entry['generated']):.4f}: {entry['greedy_text'][:60]!r}")
    return entry


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("out", type=Path)
    args = ap.parse_args()
    model = load(args.model)
    # AutoTokenizer would put Qwen2's pre-tokenizer in the place of tokenizer.json's own.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    digest = hashlib.sha256((args.model / "model.safetensors").read_bytes()).hexdigest()
    write(args.out, {
        "command": COMMAND, "compute": COMPUTE, "versions": VERSIONS,
        "model": args.model.name, "model_safetensors_sha256": digest,
        "prompts": [golden(model, tokenizer, p) for p in PROMPTS],
    })


if __name__ == "__main__":
    main()
