#!/usr/bin/env python3
"""Stage 2: the written part of the corpus: stories from plots, of which the teacher picks, and plain facts.

    written.py TEACHER_DIR OUTPUT.jsonl [--stories 200000] [--chats 200000] [--candidates 4] [--rank 0 --of 1]

For each question several stories are made; the one that the teacher finds likeliest is kept. Lines are as
corpus.py writes them, held-out questions apart.
"""
import argparse
import json
import multiprocessing as mp
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import prompts
import questions
import stories
from qwen2 import Qwen2, rows_attention


def wish(args):
    """Some questions with candidate stories each."""
    seed, count, candidates = args
    rng, out = random.Random(seed), []
    ids = lambda text: np.array(TOKENIZER.encode(text).ids, np.uint16)
    while len(out) < count:
        kind, question, words = stories.ask(rng)
        tales = []
        for _ in range(candidates):
            story = stories.Story(rng, words)
            turns, last = [[question, story.text]], story
            while rng.random() < (0.4 if len(turns) == 1 else 0.25):
                q, a, last = stories.follow_up(rng, last)
                turns.append([q, a])
            tales.append(turns)
        asked = ids(context(question))
        out.append((kind, words, tales, [(asked, ids(tale[0][1] + "<|im_end|>")) for tale in tales]))
    return out


def worker(path: str):
    """Each process that makes stories encodes them as well: the GPU waits for nobody."""
    global TOKENIZER
    TOKENIZER = Tokenizer.from_file(path)


def chat(args):
    """Some conversations about facts and small talk."""
    seed, count = args
    rng, out = random.Random(seed), []
    while len(out) < count:
        kind, turns = questions.conversation(rng)
        out.append({"kind": kind, "turns": turns, "words": [], "score": 0})
    return out


def behind(prefix, rows: int):
    """Causal attention within equally long rows that all follow the keys and values of one prefix."""
    def attend(q, k, v):
        n, heads, dim = q.shape
        split = lambda x: x.view(rows, n // rows, -1, dim).transpose(1, 2)
        join = lambda old, new: torch.cat([old.transpose(0, 1).expand(rows, -1, -1, -1), split(new)], 2)
        length, before = n // rows, len(prefix[0])
        mask = torch.ones(length, before + length, dtype=torch.bool, device=q.device).tril(before)
        out = torch.nn.functional.scaled_dot_product_attention(split(q), join(prefix[0], k), join(prefix[1], v), attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(n, heads, dim)
    return attend


class Judge:
    """The teacher's mean log probability of answers."""

    def __init__(self, directory: Path, dtype=torch.bfloat16):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.model = Qwen2.load(directory).ready(self.device, dtype)
        self.budget = 65536 if self.device == "cuda" else 2048  # tokens of a batch

    @torch.no_grad()
    def read(self, prefix: str):
        """Keys and values of a prefix that all pairs share, computed once."""
        ids = torch.tensor(self.tokenizer.encode(prefix).ids, device=self.device)
        whole, out = rows_attention(1)(0), []

        def attend(layer):
            def f(q, k, v):
                out.append((k, v))
                return whole(q, k, v)
            return f
        self.model.hidden(ids, torch.arange(len(ids), device=self.device), attend)
        return out

    def scores(self, pairs, prefix: str = ""):
        """pairs: (context, answer). Batches of similar length, right-padded: causal attention never sees the padding."""
        contexts = self.tokenizer.encode_batch([c for c, _ in pairs])
        answers = self.tokenizer.encode_batch([a + "<|im_end|>" for _, a in pairs])
        return self.scores_of([(c.ids, a.ids) for c, a in zip(contexts, answers)], prefix)

    def scores_of(self, ids, prefix: str = ""):
        self.prefix = self.read(prefix) if prefix else []
        order = sorted(range(len(ids)), key=lambda i: len(ids[i][0]) + len(ids[i][1]))
        out = np.zeros((len(ids), 2))
        while order:
            longest = len(ids[order[-1]][0]) + len(ids[order[-1]][1])
            longest = -(-longest // 16) * 16
            batch = [order.pop() for _ in range(min(len(order), max(1, self.budget // longest)))]
            out[batch] = self.batch([ids[i] for i in batch], longest)
        return out  # sum of log probabilities, tokens

    @torch.no_grad()
    def batch(self, ids, longest):
        host, mask = np.zeros((len(ids), longest), np.int64), np.zeros((len(ids), longest), bool)
        for i, (c, a) in enumerate(ids):
            host[i, :len(c)], host[i, len(c):len(c) + len(a)] = c, a
            mask[i, len(c) - 1:len(c) + len(a) - 1] = True
        x, m = torch.as_tensor(host, device=self.device), torch.as_tensor(mask, device=self.device)
        before = len(self.prefix[0][0]) if self.prefix else 0
        positions = before + torch.arange(longest, device=self.device).repeat(len(ids))
        attend = (lambda layer: behind(self.prefix[layer], len(ids))) if before else rows_attention(len(ids))
        h = self.model.hidden(x.flatten(), positions, attend).view(len(ids), longest, -1)
        where = m.nonzero()
        target = x.roll(-1, 1)[m]
        lp = torch.cat([-torch.nn.functional.cross_entropy(self.model.logits(h[w[:, 0], w[:, 1]]).float(), t, reduction="none")
                        for w, t in zip(where.split(16384), target.split(16384))])
        sums = torch.zeros(len(ids), device=self.device).index_add_(0, where[:, 0], lp)
        return np.stack([sums.cpu().numpy(), mask.sum(1)], 1)


def context(question: str) -> str:
    return prompts.TURN.format(role="system", text=prompts.SYSTEM["story"]) + prompts.prompt(question)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("teacher", type=Path)
    p.add_argument("output", type=Path)
    p.add_argument("--stories", type=int, default=200000)
    p.add_argument("--chats", type=int, default=200000)
    p.add_argument("--candidates", type=int, default=4)
    p.add_argument("--rank", type=int, default=0)
    p.add_argument("--of", type=int, default=1)
    p.add_argument("--chunk", type=int, default=2000)
    args = p.parse_args()
    start = time.time()
    workers = max(1, (os.cpu_count() or 1) // args.of - 2)
    pool = mp.get_context("fork").Pool(workers, worker, (str(args.teacher / "tokenizer.json"),))  # before CUDA starts
    judge = Judge(args.teacher)
    before = after = tokens = 0
    with args.output.open("w") as out, args.output.with_suffix(".held.jsonl").open("w") as held:
        write = lambda line: (held if prompts.held_out(line["turns"][0][0]) else out).write(json.dumps(line) + "\n")
        seeds = range(10 ** 6 * (1 + args.rank), 10 ** 6 * (1 + args.rank) + args.stories // args.of // args.chunk)
        for made in pool.imap(wish, [(s, args.chunk, args.candidates) for s in seeds]):
            scores = judge.scores_of([pair for *_, encoded in made for pair in encoded])
            means = (scores[:, 0] / scores[:, 1]).reshape(len(made), -1)
            best = means.argmax(1)
            before, after, tokens = before + means.mean(1).sum(), after + means.max(1).sum(), tokens + scores[:, 1].sum()
            for (kind, words, tales, _), b, mean in zip(made, best, means.max(1)):
                write({"kind": kind, "turns": tales[b], "words": words, "score": round(float(mean), 3)})
        n = max(1, len(seeds) * args.chunk)
        print(f"rank {args.rank}: {n} stories, mean log probability {before / n:.3f}, of the kept {after / n:.3f}; "
              f"{tokens:.0f} tokens judged in {time.time() - start:.0f} s", flush=True)
        chunk = min(args.chunk, args.chats // args.of)
        for made in pool.imap(chat, [(10 ** 8 * (1 + args.rank) + s, chunk) for s in range(args.chats // args.of // chunk)]):
            for line in made:
                write(line)
    pool.terminate()
    print(f"rank {args.rank}: written part done after {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
