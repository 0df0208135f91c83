#!/usr/bin/env python3
"""Stage 1: let the teacher answer questions, and keep what is good.

    corpus.py TEACHER_DIR OUTPUT.jsonl [--seconds 240] [--rank 0]

One process a GPU (--rank sets the seed). A line of the output is {kind, turns: [[question, answer], …],
words, score}; score is the teacher's mean log probability of its last answer. What begins with a held-out
question goes to OUTPUT.held.jsonl and is never trained on.
"""
import argparse
import json
import random
import re
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

import prompts
from qwen2 import Qwen2
from sampler import Job, Sampler

END = "<|im_end|>"
REFUSALS = re.compile(r"\b(AI|language model|assistant|chatbot|SmolLM|Hugging Face|sorry, but|cannot help|can't help|as a small child)\b")
ODD = re.compile(r"[^\x20-\x7e\n]|[<>{}\[\]*#_=|\\@$%^&+~`/]|https?:|\d{3}|\b[A-Z]{4,}\b")


def stem(word: str) -> str:
    return word[:max(3, len(word) - 2)] if len(word) > 4 else word


def uses(answer: str, words) -> bool:
    """Whether each word, or a form of it, is in the answer."""
    said = re.findall(r"[a-z'-]+", answer.lower())
    return all(any(s == w or s.startswith(stem(w)) for s in said) for w in map(str.lower, words))


def has_loop(answer: str) -> bool:
    """A run of four words that stands there three times, or a sentence twice."""
    words = re.findall(r"[\w']+", answer.lower())
    seen = {}
    for i in range(len(words) - 3):
        key = tuple(words[i:i + 4])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] >= 3:
            return True
    sentences = [s.strip() for s in re.split(r"[.!?\n]+", answer.lower()) if len(s.strip()) > 12]
    return len(sentences) != len(set(sentences))


def good(kind: str, answer: str, words, finished: bool) -> bool:
    n = len(answer.split())
    if not finished or n < 3 or has_loop(answer) or REFUSALS.search(answer) or ODD.search(answer):
        return False
    if not re.search(r"[.!?\"']$", answer) or answer.count('"') % 2 or not answer[0].isupper() and answer[0] != '"':
        return False
    if kind in ("words", "about"):
        return n >= 25 and uses(answer, words)
    return n <= 90


def ask(sampler, tokenizer, jobs, deadline):
    """Yields (what was asked, answer, finished, score)."""
    for job in sampler.run(jobs, deadline):
        yield job.data, tokenizer.decode(job.tokens, skip_special_tokens=False).strip(), job.finished, job.logprob


def main():
    p = argparse.ArgumentParser()
    p.add_argument("teacher", type=Path)
    p.add_argument("output", type=Path)
    p.add_argument("--seconds", type=float, default=240)
    p.add_argument("--rank", type=int, default=0)
    p.add_argument("--rows", type=int, default=4096)
    p.add_argument("--temperature", type=float, default=0.8)
    p.add_argument("--min-p", type=float, default=0.08)
    p.add_argument("--stories", type=float, default=0.0, help="share of stories among the questions")
    p.add_argument("--samples", action="store_true", help="print some of what was kept and dropped")
    args = p.parse_args()
    start = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.rank)
    rng = random.Random(1000 + args.rank)
    tokenizer = Tokenizer.from_file(str(args.teacher / "tokenizer.json"))
    teacher = Qwen2.load(args.teacher).ready(device, torch.bfloat16)
    encode = lambda text: tokenizer.encode(text).ids
    texts = prompts.prefixes()
    ids = [encode(t) for group in texts.values() for t in group]
    index, at = {}, 0
    for kind, group in texts.items():
        index[kind] = range(at, at + len(group))
        at += len(group)
    end = [tokenizer.token_to_id(END), 0]
    made = lambda max_prompt, rows: Sampler(teacher, ids, end, rows, max_prompt, 208, args.temperature, args.min_p, seed=args.rank, cut_loops=True)

    def first():
        while True:
            kind, question, words = prompts.question(rng, args.stories)
            text = encode(prompts.prompt(question))
            if len(text) <= 64:
                yield Job(rng.choice(index[prompts.style(kind)]), text, (kind, [], question, words))

    kept = []

    def second():
        for kind, turns, words in list(kept):
            question = rng.choice(prompts.FOLLOW[prompts.style(kind)])
            text = encode(prompts.prompt(question, turns))
            if len(text) <= 256:
                yield Job(rng.choice(index["next"]), text, ("next", turns, question, words))

    def generate(sampler, jobs, seconds, out, held):
        begin = time.time()
        count = tokens = total = 0
        shown = {True: 0, False: 0}
        deadline = lambda: time.time() - begin > seconds
        for (kind, turns, question, words), answer, finished, score in ask(sampler, tokenizer, jobs, deadline):
            total += 1
            tokens += len(answer) // 4
            ok = good(kind, answer, words, finished)
            if args.samples and shown[ok] < 25 and time.time() - begin > 0.3 * seconds:
                shown[ok] += 1
                print(f"{'KEPT' if ok else 'DROPPED'} {score:.2f} [{question}] {answer[:500]!r}", flush=True)
            if ok:
                count += 1
                turns = turns + [[question, answer]]
                apart = prompts.held_out(turns[0][0])
                if kind != "next" and score > -1.1:
                    kept.append((kind, turns, words))
                (held if apart else out).write(json.dumps({"kind": kind, "turns": turns, "words": words, "score": round(score, 3)}) + "\n")
        took = time.time() - begin
        print(f"rank {args.rank}: {total} answers, {count} kept, about {tokens / took:.0f} tok/s in {took:.0f} s", flush=True)

    with args.output.open("w") as out, args.output.with_suffix(".held.jsonl").open("w") as held:
        sampler = made(64, args.rows)
        print(f"rank {args.rank}: ready after {time.time() - start:.0f} s", flush=True)
        generate(sampler, first(), args.seconds * 0.8, out, held)
        del sampler
        rng.shuffle(kept)
        generate(made(256, args.rows // 2), second(), args.seconds * 0.2, out, held)


if __name__ == "__main__":
    main()
