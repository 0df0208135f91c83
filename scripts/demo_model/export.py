#!/usr/bin/env python3
"""Stage 6: int8 with per-row scales, for the repository; and back to a Hugging Face checkpoint.

    export.py TRAINED_DIR TOKENIZER_DIR OUTPUT_DIR      writes config.json, generation_config.json, tokenizer files, demo.safetensors
    export.py --expand DEMO_DIR OUTPUT_DIR              writes an ordinary bf16 checkpoint, as the engine sees it

demo.safetensors is a safetensors file. A matrix NAME is stored as I8 with NAME.scale, F32, one a row: its
value is int8 · scale, rounded to bfloat16. Vectors are stored as BF16.
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json")
WEIGHTS = "demo.safetensors"


def quantize(weights: dict) -> dict:
    out = {}
    for name, w in weights.items():
        if w.ndim == 2:
            scale = w.float().abs().amax(1).clamp(min=1e-12) / 127
            out[name] = (w.float() / scale[:, None]).round().to(torch.int8)
            out[name + ".scale"] = scale
        else:
            out[name] = w.to(torch.bfloat16)
    return out


def expand(stored: dict) -> dict:
    out = {}
    for name, w in stored.items():
        if w.dtype == torch.int8:
            out[name] = (w.float() * stored[name + ".scale"][:, None]).to(torch.bfloat16)
        elif not name.endswith(".scale"):
            out[name] = w
    return out


def configs(shape: dict, tokenizer: dict) -> tuple:
    ids = {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    end, text = ids["<|im_end|>"], ids["<|endoftext|>"]
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", **shape, "hidden_act": "silu",
              "tie_word_embeddings": True, "use_sliding_window": False, "attention_dropout": 0.0, "bos_token_id": text, "eos_token_id": end}
    generation = {"bos_token_id": text, "pad_token_id": text, "eos_token_id": [end, text], "do_sample": True, "temperature": 0.7, "top_p": 0.9, "min_p": 0.05}
    return config, generation


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--expand", action="store_true")
    p.add_argument("paths", type=Path, nargs="+")
    args = p.parse_args()
    output = args.paths[-1]
    output.mkdir(parents=True, exist_ok=True)
    write = lambda name, value: (output / name).write_text(json.dumps(value, indent=2) + "\n")
    if args.expand:
        source = args.paths[0]
        for name in ("config.json", "generation_config.json", *TEXT_FILES):
            if source.resolve() != output.resolve():
                shutil.copyfile(source / name, output / name)
        save_file(expand(load_file(source / WEIGHTS)), output / "model.safetensors", metadata={"format": "pt"})
        return
    trained, tokenizer = args.paths[:2]
    for name in TEXT_FILES:
        shutil.copyfile(tokenizer / name, output / name)
    config, generation = configs(json.loads((trained / "config.json").read_text()), json.loads((tokenizer / "tokenizer.json").read_text()))
    write("config.json", config)
    write("generation_config.json", generation)
    stored = quantize(load_file(trained / "model.safetensors"))
    save_file(stored, output / WEIGHTS)
    total = sum(f.stat().st_size for f in output.iterdir())
    print(f"{len(stored)} tensors, {total / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main()
