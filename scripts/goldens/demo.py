#!/usr/bin/env python3
"""Write golden greedy continuations of the demo model: smollm2.py's format, other prompts.

    demo.py model/demo OUTPUT.json

The int8 weights are expanded as the engine expands them; transformers loads the result like any checkpoint.
"""
import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from reference import COMMAND, COMPUTE, VERSIONS, load, write
from smollm2 import golden

EXPAND = Path(__file__).parents[1] / "demo_model" / "export.py"


def user(*texts):
    """A chat of user and assistant turns in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


PROMPTS = [
    {"name": "story", "messages": user("Tell me a story about a fox.")},
    {"name": "words", "messages": user("Write a short story with the words: robot, river, happy.")},
    {"name": "sky", "messages": user("Why is the sky blue?")},
    {"name": "animal", "messages": user("What do cows eat?"), "all_positions": True},
    {"name": "hello", "messages": user("Hello!")},
    {"name": "name", "messages": user("What is your name?")},
    {"name": "system", "messages": [{"role": "system", "content": "You are a storyteller for children."}, *user("I am sad.")]},
    {"name": "turns", "messages": user("What is an owl?", "An owl is a bird that is awake at night.", "What do they eat?")},
    {"name": "raw", "text": "Once upon a time, there was a little"},
]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("demo", type=Path)
    ap.add_argument("out", type=Path)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as expanded:
        subprocess.run([sys.executable, EXPAND, "--expand", args.demo, expanded], check=True)
        model, tokenizer = load(Path(expanded)), PreTrainedTokenizerFast.from_pretrained(expanded)
        digest = hashlib.sha256((args.demo / "demo.safetensors").read_bytes()).hexdigest()
        write(args.out, {
            "command": COMMAND, "compute": COMPUTE, "versions": VERSIONS,
            "model": "demo", "demo_safetensors_sha256": digest,
            "prompts": [golden(model, tokenizer, p) for p in PROMPTS],
        })


if __name__ == "__main__":
    main()
