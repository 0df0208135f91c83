"""Conversations as Qwen2.5's chat template renders them, in token ids, and batches of them for training."""
import json
import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

DEFAULT_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."  # the template's own
SYSTEMS = [DEFAULT_SYSTEM] * 12 + [
    "You are a helpful assistant.", "You are a friendly assistant.", "You are a storyteller for children.", "Answer in short, simple sentences.",
    "You are the demo model of Pagoda.", "Be kind and brief.", "You talk with a child.", "You are a teacher.", ""]
LOSS = 0x8000  # set on the ids that are learned
LONGEST = 1024


class Chat:
    """Renders turns; the learned part is the answers with their end token."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
        self.newline = self.ids("\n")
        self.user, self.assistant = self.ids("user\n"), self.ids("assistant\n")

    def ids(self, text: str) -> list:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def system(self, text: str = DEFAULT_SYSTEM) -> list:
        return [self.start, *self.ids("system\n" + text), self.end, *self.newline]

    def question(self, ids: list) -> list:
        return [self.start, *self.user, *ids, self.end, *self.newline, self.start, *self.assistant]

    def prompt(self, question: str, system: str = DEFAULT_SYSTEM, before=()) -> list:
        out = self.system(system)
        for q, a in before:
            out += self.question(self.ids(q)) + self.ids(a) + [self.end, *self.newline]
        return out + self.question(self.ids(question))


def encode(chat: Chat, lines: list) -> list:
    """Each line's turns as uint16 ids, LOSS set on what is learned."""
    texts = [text for line in lines for turn in line["turns"] for text in turn]
    encoded = iter(chat.tokenizer.encode_batch(texts, add_special_tokens=False))
    out = []
    for line in lines:
        ids = []
        for _ in line["turns"]:
            ids += chat.question(next(encoded).ids)
            ids += [i | LOSS for i in next(encoded).ids + [chat.end]] + chat.newline
        out.append(np.array(ids[:LONGEST - 64], np.uint16))
    return out


def read(paths) -> list:
    return [json.loads(line) for path in paths for line in Path(path).open()]


def classes(lines: list, best: float) -> dict:
    """Lines by origin and kind. Of the teacher's own, those of each kind with the best scores."""
    out = {"story": [], "chat": [], "teacher story": [], "teacher chat": []}
    by_kind = {}
    for line in lines:
        tale = line["kind"] in ("words", "about", "any")
        if line.get("written"):
            out["story" if tale else "chat"].append(line)
        else:
            by_kind.setdefault(line["kind"], []).append(line)
    for kind, group in by_kind.items():
        group.sort(key=lambda l: -l["score"])
        out["teacher story" if kind in ("words", "about") else "teacher chat"] += group[:int(best * len(group))]
    return out


class Batches(IterableDataset):
    """Endless packed batches of `tokens` ids: (ids, targets or −1, positions, boundaries of sequences).

    A sequence is a system turn and one conversation or several, so that the student learns to answer the last
    question of a long chat. Targets that are not learned are −1.
    """

    def __init__(self, chat: Chat, groups: dict, weights: dict, tokens: int, seed: int):
        self.seed = seed
        self.names = [n for n in groups if groups[n]]
        self.weights = [weights[n] for n in self.names]
        self.groups, self.tokens = groups, tokens
        self.systems = [np.array(chat.system(s), np.uint16) for s in SYSTEMS]
        self.most = tokens // 32  # sequences of a batch

    def sequence(self):
        rng = self.rng
        parts = [rng.choice(self.systems)]
        size = len(parts[0])
        for _ in range(1 if rng.random() < 0.6 else rng.randrange(2, 7)):
            part = rng.choice(self.groups[rng.choices(self.names, self.weights)[0]])
            if size + len(part) > LONGEST:
                break
            parts.append(part)
            size += len(part)
        return parts

    def batch(self):
        flat, starts, size = [], [0], 0
        while size < self.tokens:
            parts = self.sequence()
            flat += parts
            size += sum(map(len, parts))
            starts.append(min(size, self.tokens))
        raw = np.concatenate(flat)[:self.tokens + 1]
        if len(raw) <= self.tokens:
            raw = np.append(raw, 0)
        ids = (raw & ~np.uint16(LOSS)).astype(np.int64)
        targets = np.where(raw[1:] & LOSS, ids[1:], -1)
        starts = np.array(starts)
        positions = np.arange(self.tokens) - np.repeat(starts[:-1], np.diff(starts))
        bounds = np.full(self.most + 1, self.tokens, np.int32)
        bounds[:len(starts)] = starts
        return ids[:-1], targets, positions, bounds

    def __iter__(self):
        worker = get_worker_info()
        self.rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        while True:
            yield tuple(map(torch.from_numpy, self.batch()))


def stream(batches: Batches, workers: int):
    """An iterator over batches that other processes make."""
    return iter(DataLoader(batches, batch_size=None, num_workers=workers, pin_memory=torch.cuda.is_available(),
                           prefetch_factor=4 if workers else None, multiprocessing_context="fork" if workers else None))
