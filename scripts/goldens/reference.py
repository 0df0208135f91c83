"""What the golden scripts share: the float32 reference model and how its outputs are written."""
import json
from pathlib import Path

import numpy
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

transformers.utils.logging.disable_progress_bar()

COMMAND = "scripts/goldens/make.sh"
COMPUTE = "bfloat16 weights, everything computed in float32 on the CPU, eager attention"
VERSIONS = {m.__name__: m.__version__ for m in (torch, transformers, tokenizers, numpy)}


def load(directory: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def logits(model: PreTrainedModel, ids: list) -> torch.Tensor:
    """Logits of every position of one sequence, [len(ids), vocab], without a KV cache."""
    return model(torch.tensor([ids]), use_cache=False).logits[0]


class compact:
    """A value that write puts on one line."""

    def __init__(self, value):
        self.value = value


def write(path: Path, golden: dict) -> None:
    """Indented JSON that diffs well: compact values take a line each."""
    lines = []

    def mark(v: compact) -> str:
        lines.append(json.dumps(v.value, ensure_ascii=False))
        return f"<line {len(lines) - 1}>"

    text = json.dumps(golden, indent=1, ensure_ascii=False, default=mark)
    for i, line in enumerate(lines):
        text = text.replace(f'"<line {i}>"', line, 1)
    path.write_text(text + "\n", encoding="utf-8")
