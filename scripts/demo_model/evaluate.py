#!/usr/bin/env python3
"""Stage 7: the figures of docs/demo-model.md, on questions that training never saw. Runs on a CPU in minutes.

    evaluate.py DEMO_DIR TEACHER_DIR [--held held.jsonl] [--answers 500]
    evaluate.py --conversations DEMO_DIR            twenty sampled conversations, seeds 0 to 19
    evaluate.py --prepare --held OUT.jsonl CORPUS.held.jsonl…   draws the questions; the teacher answers at --url,
                                                    where `pagoda serve TEACHER_DIR` listens

DEMO_DIR has what export.py writes. The teacher sees the examples of prompts.py before each question, for its
own answers and when it judges those of the student.
"""
import argparse
import json
import math
import random
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import chatdata
import export
import prompts
import stories
from corpus import has_loop, uses
from qwen2 import Qwen2, Shape, rows_attention
from sampler import Job, Sampler
from written import Judge

CAP = 200  # tokens of an answer
TEMPERATURE = 0.7
MIN_P = 0.05  # of conversations: generation_config.json recommends it
STORIES = ("words", "about", "any")
DEVICE, DTYPE = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


class Student:
    """The demo model as the engine expands it, and its chat."""

    def __init__(self, directory: Path):
        self.model = Qwen2(Shape.read(directory / "config.json"))
        self.model.load_state_dict({k: v.float() for k, v in export.expand(load_file(directory / export.WEIGHTS)).items()})
        self.model.ready(DEVICE, DTYPE)
        self.chat = chatdata.Chat(Tokenizer.from_file(str(directory / "tokenizer.json")))
        self.ends = [self.chat.end, self.chat.tokenizer.token_to_id("<|endoftext|>")]

    def answer(self, chats, seed: int, min_p: float = 0.0):
        """One sampled answer to each chat, a list of turns and a question: (text, ended by itself)."""
        torch.manual_seed(seed)
        jobs = [Job(0, self.chat.prompt(q, before=before), i) for i, (before, q) in enumerate(chats)]
        longest = max(len(j.prompt) for j in jobs)
        sampler = Sampler(self.model, [[]], self.ends, min(128, len(jobs)), longest + 32, CAP + 8, TEMPERATURE, min_p, seed=seed)
        out = [None] * len(jobs)
        for job in sampler.run(jobs):
            out[job.data] = self.chat.tokenizer.decode(job.tokens), job.finished
        return out

    @torch.no_grad()
    def loss(self, lines) -> float:
        """Mean loss of a token of the answers."""
        total = count = 0
        system = self.chat.system()
        for conversation in chatdata.encode(self.chat, lines):
            raw = np.concatenate([np.array(system, np.uint16), conversation]).astype(np.int64)
            ids, learned = torch.as_tensor(raw & ~chatdata.LOSS, device=DEVICE), torch.as_tensor(raw[1:] & chatdata.LOSS > 0, device=DEVICE)
            hidden = self.model.hidden(ids, torch.arange(len(ids), device=DEVICE), rows_attention(1))
            losses = torch.nn.functional.cross_entropy(self.model.logits(hidden[:-1]).float(), ids[1:], reduction="none")
            total, count = total + losses[learned].sum().item(), count + int(learned.sum())
        return total / count


def context(line) -> str:
    return prompts.prefixes()[prompts.style(line["kind"])][0] + prompts.prompt(line["turns"][0][0])


def perplexity(judge, lines, answers) -> float:
    """Of answers, each behind the examples of its kind."""
    total = count = 0
    for kind, group in prompts.prefixes().items():
        pairs = [(prompts.prompt(l["turns"][0][0]), a) for l, a in zip(lines, answers) if prompts.style(l["kind"]) == kind]
        if pairs:
            scores = judge.scores(pairs, group[0])
            total, count = total + scores[:, 0].sum(), count + scores[:, 1].sum()
    return math.exp(-total / count)


def prepare(args):
    """Draws held-out questions, half of them wishes for stories, and lets the teacher answer them as the student will."""
    rng = random.Random(0)
    lines = [l for l in chatdata.read(args.paths) if l["kind"] != "next"]
    seen, pools = set(), {True: [], False: []}
    rng.shuffle(lines)
    for line in lines:
        question = line["turns"][0][0]
        assert prompts.held_out(question)
        if question not in seen:
            seen.add(question)
            pools[line["kind"] in STORIES].append(line)
    half = args.answers // 2
    chosen = pools[True][:half] + pools[False][:args.answers - half]
    rng.shuffle(chosen)

    def answer(numbered):
        seed, line = numbered
        body = {"prompt": context(line), "max_tokens": CAP, "temperature": TEMPERATURE, "seed": seed}
        request = urllib.request.Request(args.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            choice = json.load(reply)["choices"][0]
        return {k: line[k] for k in ("kind", "turns", "words")} | {"teacher": choice["text"].strip(), "ended": choice["finish_reason"] == "stop"}

    with ThreadPoolExecutor(16) as pool, args.held.open("w") as f:
        for line in pool.map(answer, enumerate(chosen)):
            f.write(json.dumps(line, ensure_ascii=False) + "\n")


def evaluate(args):
    lines = chatdata.read([args.held])[:args.answers]
    student = Student(args.paths[0])
    row = lambda name, value, want="": print(f"{name:58} {value:>9} {want}", flush=True)
    row("questions that training never saw", len(lines))
    row("validation loss, nats a token of the student", f"{student.loss(lines):.3f}")
    tales = [l for l in lines if l["kind"] in STORIES]
    row("  of written stories", f"{student.loss(tales):.3f}")
    answers = student.answer([((), l["turns"][0][0]) for l in lines], args.seed)
    texts = [a for a, _ in answers]
    share = lambda values: f"{100 * sum(values) / len(values):.1f} %"
    row(f"answers that end by themselves within {CAP} tokens", share([e for _, e in answers]), ">= 90 %")
    row("answers with a 4-gram loop (one three times, or a sentence twice)", share([has_loop(t) for t in texts]), "<= 3 %")
    asked = [(t, l["words"]) for t, l in zip(texts, lines) if l["kind"] in STORIES and l["words"]]
    row(f"stories that use every asked-for word ({len(asked)})", share([uses(t, w) for t, w in asked]), ">= 80 %")
    row("  asked-for words that are used", share([uses(t, [w]) for t, ws in asked for w in ws]))
    if args.show:
        for t, l in list(zip(texts, lines))[::max(1, len(lines) // args.show)]:
            print(f"[{l['turns'][0][0]}] {t!r}")
    if len(args.paths) < 2:
        return
    judge = Judge(args.paths[1])
    theirs = perplexity(judge, lines, texts)
    row("teacher's perplexity on the student's answers", f"{theirs:.2f}")
    own = perplexity(judge, lines, [l["teacher"] for l in lines])
    row("teacher's perplexity on its own answers", f"{own:.2f}", f"the student's is {theirs / own:.2f} times this, <= 2.5")
    rng = random.Random(args.seed)
    shuffled = [" ".join(rng.sample(t.split(), len(t.split()))) for t in texts[::5]]
    row("  on every fifth of the student's, its words shuffled", f"{perplexity(judge, lines[::5], shuffled):.0f}")
    kept = [(l, l["teacher"]) for l in lines if l["ended"] and l["teacher"] and not has_loop(l["teacher"])]
    row(f"  on its own that end and do not loop ({len(kept)})", f"{perplexity(judge, *zip(*kept)):.2f}")


def conversations(args):
    """Markdown: conversation i is drawn with seed i, questions and answers alike."""
    student = Student(args.paths[0])
    for seed in range(20):
        rng, turns = random.Random(seed), []
        while True:
            kind, question, _ = stories.ask(rng) if rng.random() < 0.5 else (*prompts.question(rng, 0.0)[:2], None)
            if prompts.held_out(question):
                break
        follow = prompts.FOLLOW[prompts.style(kind)]
        for question in [question] + rng.sample(follow, rng.randrange(1, 3)):
            (text, ended), = student.answer([(turns, question)], seed, MIN_P)
            turns.append((question, text + ("" if ended else " …")))
        print(f"**Seed {seed}**\n")
        for question, text in turns:
            print(f"> {question}\n")
            print(text.strip().replace("\n", "  \n") + "\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("paths", type=Path, nargs="+")
    p.add_argument("--held", type=Path, default=Path(__file__).parent / "held.jsonl")
    p.add_argument("--answers", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--show", type=int, default=0, help="print so many of the answers")
    p.add_argument("--conversations", action="store_true")
    p.add_argument("--prepare", action="store_true")
    p.add_argument("--url", default="http://127.0.0.1:8000", help="of the teacher, for --prepare")
    args = p.parse_args()
    (prepare if args.prepare else conversations if args.conversations else evaluate)(args)


if __name__ == "__main__":
    main()
