"""What is measured between two lists of scores, as `pagoda score` prints them. Needs no package."""
import json
import math
from dataclasses import dataclass
from pathlib import Path

MEAN, MOST = 0.02, 0.25  # |Δ log probability|, nats
GAP = 0.25  # two ids that are closer in the reference may change places
LAYER = 0.02  # |Δ| of the hidden states of a layer over their size


@dataclass
class Comparison:
    """Differences over all tokens of all sequences."""

    prompts: int = 0
    tokens: int = 0
    total: float = 0.0
    most: float = 0.0
    most_at: str = ""
    beyond: int = 0  # tokens that differ by more than MOST
    parted: int = 0  # other likeliest id
    parted_apart: int = 0  # and not because the reference's two best are close
    widest: float = 0.0  # gap of the reference where the likeliest ids differ
    decode_tokens: int = 0
    decode_total: float = 0.0
    decode_most: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / max(self.tokens, 1)

    @property
    def decode_mean(self) -> float:
        return self.decode_total / max(self.decode_tokens, 1)

    @property
    def within(self) -> bool:
        """False, too, for what is not a number and for nothing at all."""
        return self.tokens > 0 and self.mean <= MEAN and self.most <= MOST and self.parted_apart == 0


def compare(reference: list, scores: list) -> Comparison:
    """Both lists have the same sequences; entry i of a sequence is about ids[i + 1]."""
    if len(reference) != len(scores):
        raise ValueError(f"{len(scores)} sequences, the reference has {len(reference)}")
    c = Comparison(prompts=len(scores))
    for want, got in zip(reference, scores):
        if want["ids"] != got["ids"]:
            raise ValueError(f"sequence {got['id']}: not the ids of the reference")
        first = got["prompt_tokens"] - 1  # of the generated tokens
        for i, (a, b) in enumerate(zip(want["logprobs"], got["logprobs"], strict=True)):
            delta = abs(a - b)
            if math.isnan(delta):
                delta = math.inf
            c.tokens, c.total, c.beyond = c.tokens + 1, c.total + delta, c.beyond + (delta > MOST)
            if delta > c.most:
                c.most, c.most_at = delta, f"{got['id']}, token {i + 1}"
            if i >= first:
                c.decode_tokens, c.decode_total = c.decode_tokens + 1, c.decode_total + delta
                c.decode_most = max(c.decode_most, delta)
            if want["argmax"][i] != got["argmax"][i]:
                c.parted += 1
                c.widest = max(c.widest, want["gap"][i])
                c.parted_apart += not want["gap"][i] < GAP
    return c


def read(path: Path) -> list:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def write(path: Path, scores: list) -> None:
    """The file appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as out:
        for score in scores:
            print(json.dumps(score), file=out)
    part.rename(path)
