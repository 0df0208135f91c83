#!/usr/bin/env python3
"""Stage 5: the student answers questions many times, the teacher picks, and the student learns what was picked.

    refine.py TEACHER_DIR TOKENIZER_DIR STUDENT_DIR OUTPUT_DIR --corpus FILE… --held FILE… [--rounds 4] [--smoke]

Rejection sampling in rounds. Of the answers to a question, those with a loop, without an end or without the words
that were asked for are dropped, and of the others the ones are learned that the teacher finds likeliest, among as
much of the corpus. The teacher reads other examples before a question than at the evaluation. After each round
held-out questions are answered; OUTPUT-1, OUTPUT-2 … are the rounds, and OUTPUT_DIR is the best of them.
"""
import argparse
import copy
import math
import multiprocessing as mp
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import chatdata
import prompts
import questions
import stories
from corpus import good, has_loop, uses
from qwen2 import Qwen2, Shape
from sampler import Job, Sampler
from train import Learner, save
from written import Judge, chat as chats

TALES = ("words", "about", "any")
WEIGHTS = {"own story": 0.42, "own chat": 0.08, "story": 0.12, "chat": 0.34, "teacher chat": 0.04}
TEMPERATURE = 0.7  # of the evaluation
WARMER = 0.85  # of what is chosen from
TOPIC = 0.5  # how much an answer gains by fitting its own question better than another one
LEAST = 0.85  # share of the distinct 4-grams of the start that a round must have
REPLAY = 3  # one line of the corpus in so many is learned again
CHATS = 100  # thousands of new conversations about facts and small talk
CAP = 208


def ask(rng):
    """(kind, question, words that the answer must use) that may be trained on."""
    while True:
        style = rng.random()
        if style < 0.6:
            kind, question, words = stories.ask(rng)
        elif style < 0.75:
            kind, question, words = prompts.question(rng, 0.0)
        else:
            (kind, turns), words = questions.conversation(rng), []
            question = turns[0][0]
        if not prompts.held_out(question):
            return kind, question, words


def fit(case) -> bool:
    """Whether an answer may be learned."""
    (kind, _, words), text, finished = case
    return good("words" if kind in TALES else kind, text, words, finished)


def rarity(ids) -> np.ndarray:
    """How rare the 4-grams of each answer are among all answers: −mean log of their counts. Below a floor, where slips are, all count alike."""
    grams = [a[:-3] * 4096 ** 3 + a[1:-2] * 4096 ** 2 + a[2:-1] * 4096 + a[3:] if len(a) > 3 else np.zeros(1, np.int64) for a in ids]
    _, inverse, counts = np.unique(np.concatenate(grams), return_inverse=True, return_counts=True)
    logs, at = np.log(np.maximum(counts, len(ids) / 2000)[inverse]), np.cumsum([0] + [len(g) for g in grams])
    return -np.add.reduceat(logs, at[:-1]) / np.diff(at)


class Pupil:
    """Answers of the model that is trained."""

    def __init__(self, model, chat, device, rows):
        self.model, self.chat, cuda = model, chat, device != "cpu"
        self.copy = copy.deepcopy(model).ready(device, torch.bfloat16 if cuda else torch.float32)
        self.system = chat.system()
        ends = [chat.end, chat.tokenizer.token_to_id("<|endoftext|>")]
        self.temperature = torch.tensor(TEMPERATURE, device=device)  # a tensor, for a CUDA graph reads it anew
        self.sampler = Sampler(self.copy, [self.system], ends, rows, 96, CAP, self.temperature, seed=0)

    @torch.no_grad()
    def answer(self, asked, times: int, temperature: float):
        """[(asked, text, ended by itself, ids)], each question `times` times."""
        self.temperature.fill_(temperature)
        for mine, learned in zip(self.copy.parameters(), self.model.parameters()):
            mine.copy_(learned)
        self.sampler._fill_prefix(0, self.system)
        ids = [self.chat.question(e.ids) for e in self.chat.tokenizer.encode_batch([a[1] for a in asked], add_special_tokens=False)]
        jobs = [Job(0, i, a) for i, a in zip(ids, asked) if len(i) <= 96 for _ in range(times)]
        done = list(self.sampler.run(jobs))
        texts = self.chat.tokenizer.decode_batch([j.tokens for j in done])
        return [(j.data, t, j.finished, j.tokens) for j, t in zip(done, texts)]


class Teacher:
    """Scores answers behind the examples of their kind."""

    def __init__(self, directory):
        self.judge, self.texts = Judge(directory), prompts.prefixes()

    def score(self, cases, which: int, questions=None):
        """[answers, 2]: sum of log probabilities and tokens; `which` of the groups of examples stands before."""
        out = np.zeros((len(cases), 2))
        for style, group in self.texts.items():
            at = [i for i, c in enumerate(cases) if prompts.style(c[0][0]) == style]
            if at:
                pairs = [(prompts.prompt(questions[i] if questions else cases[i][0][1]), cases[i][1]) for i in at]
                out[at] = self.judge.scores(pairs, group[which % len(group)])
        return out


def perplexity(sums) -> float:
    return math.exp(-sums[:, 0].sum() / max(1, sums[:, 1].sum()))


def choose(cases, teacher, which: int, best: int, rare: float):
    """The best answers to each question, as lines of a corpus."""
    sums = teacher.score(cases, which)
    score = sums[:, 0] / sums[:, 1]
    chats = [i for i, c in enumerate(cases) if c[0][0] not in TALES]
    if chats:
        mixed = [cases[i] for i in chats]
        by_style = {}
        for c in mixed:
            by_style.setdefault(prompts.style(c[0][0]), []).append(c[0][1])
        pick = random.Random(which)
        other = teacher.score(mixed, which, [pick.choice(by_style[prompts.style(c[0][0])]) for c in mixed])
        score[chats] += TOPIC * (score[chats] - other[:, 0] / other[:, 1])
    score += rare * rarity([np.array(c[3], np.int64) for c in cases])
    groups, out, taken = {}, [], []
    for i, c in enumerate(cases):
        groups.setdefault(c[0][1], {}).setdefault(c[1], i)  # the same answer counts once
    for at in groups.values():
        for i in sorted(at.values(), key=lambda i: -score[i])[:best]:
            (kind, question, words), text = cases[i][:2]
            taken.append(i)
            out.append({"kind": kind, "turns": [[question, text]], "words": words, "score": float(score[i])})
    return out, perplexity(sums), perplexity(sums[taken])


def figures(cases, teacher) -> dict:
    """What the evaluation counts, on answers to held-out questions."""
    sums = teacher.score(cases, 0)
    told = np.array([c[0][0] in TALES for c in cases])
    tales = [c for c, t in zip(cases, told) if t and c[0][2]]
    ids = [np.array(c[3], np.int64) for c in cases]
    grams = np.concatenate([a[:-3] * 4096 ** 3 + a[1:-2] * 4096 ** 2 + a[2:-1] * 4096 + a[3:] for a in ids if len(a) > 3])
    share = lambda values: 100 * sum(values) / max(1, len(values))
    return {"perplexity": perplexity(sums), "of stories": perplexity(sums[told]), "of chats": perplexity(sums[~told]), "end": share([c[2] for c in cases]), "loops": share([has_loop(c[1]) for c in cases]),
            "words": share([uses(c[1], c[0][2]) for c in tales]), "distinct": 100 * len(np.unique(grams)) / len(grams)}


def arguments():
    p = argparse.ArgumentParser()
    for name in ("teacher", "tokenizer", "student", "output"):
        p.add_argument(name, type=Path)
    p.add_argument("--corpus", nargs="+", required=True, help="as for train.py")
    p.add_argument("--held", nargs="+", required=True)
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--seconds", type=float, default=400, help="no round begins that would end later")
    p.add_argument("--questions", type=int, default=4000)
    p.add_argument("--candidates", type=int, default=20)
    p.add_argument("--best", type=int, default=2)
    p.add_argument("--rare", type=float, default=0.25, help="how much an answer gains by saying what others do not: without this, all stories become one")
    p.add_argument("--first", type=int, default=0, help="rounds that went before: other questions are asked")
    p.add_argument("--steps", type=int, default=150, help="of training in a round")
    p.add_argument("--rate", type=float, default=0.2, help="of learning, as a share of train.py's")
    p.add_argument("--smoke", action="store_true", help="very little of everything, for trying the script on a CPU")
    args = p.parse_args()
    if args.smoke:
        args.rounds, args.questions, args.candidates, args.steps = 1, 12, 4, 2
    return args


def learn(learner, groups, chat, batch, steps, rates, seed):
    """Some steps on the groups; rates(0…1) gives the factor of the learning rates."""
    batches = chatdata.stream(chatdata.Batches(chat, groups, WEIGHTS, batch, seed), workers=4 if learner.cuda else 0)
    losses = [learner.step(next(batches), rates(i / steps)) for i in range(steps)]
    return sum(l.item() for l in losses[-20:]) / len(losses[-20:])


def main():
    args = arguments()
    begin = time.time()
    say = lambda *a: print(f"[{time.time() - begin:6.1f} s]", *a, flush=True)
    pool = mp.get_context("fork").Pool(max(1, (os.cpu_count() or 2) - 2))  # before CUDA starts
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chat = chatdata.Chat(Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")))
    lines = [{**l, "written": path[0] == "+"} for path in args.corpus for l in chatdata.read([path.lstrip("+")])[::REPLAY]]
    news = [l for made in pool.map(chats, [(10 ** 9 + s, 1000) for s in range(1 if args.smoke else CHATS)]) for l in made]
    lines += [{**l, "written": True} for l in news if not prompts.held_out(l["turns"][0][0])]
    replay = {name: chatdata.encode(chat, group) for name, group in chatdata.classes(lines, 0.4).items() if name in WEIGHTS}
    held = [(l["kind"], l["turns"][0][0], l["words"]) for path in args.held for l in chatdata.read([path]) if l["kind"] != "next"]
    random.Random(0).shuffle(held)
    tales = [h for h in held if h[0] in TALES]
    held = (tales[:600] + [h for h in held if h[0] not in TALES][:600])[::60 if args.smoke else 1]
    say(f"corpus read; {len(held)} held-out questions")

    model = Qwen2(Shape.read(args.student / "config.json"))
    model.load_state_dict({k: v.float() for k, v in load_file(args.student / "model.safetensors").items()})
    model.to(device)
    learner, teacher = Learner(model, device, 1), Teacher(args.teacher)
    pupil = Pupil(model, chat, device, 4096 if device == "cuda" else 16)
    best, before, varied = None, [], None

    def check(name):
        nonlocal best, varied
        now = figures(pupil.answer(held, 1, TEMPERATURE), teacher)
        varied = varied or now["distinct"]
        ok = now["end"] >= 95 and now["loops"] <= 2 and now["words"] >= 88 and now["distinct"] >= LEAST * varied
        say(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in now.items()))
        if best is None or (ok, -now["perplexity"]) > best:
            best = ok, -now["perplexity"]
            save(model, args.output)
            say("kept")
        save(model, args.output.with_name(args.output.name + "-" + name.split()[-1]))

    check("before")
    for number in range(args.first, args.first + args.rounds):
        start, rng = time.time(), random.Random(7000 + number)
        asked = [ask(rng) for _ in range(args.questions)]
        answers = pupil.answer(asked, args.candidates, WARMER)
        say(f"round {number + 1}: {len(answers)} answers")
        fits = pool.map(fit, [a[:3] for a in answers], chunksize=500)
        chosen, theirs, best_of = choose([a for a, ok in zip(answers, fits) if ok], teacher, number + 1, args.best, args.rare)
        say(f"{sum(fits)} fit, perplexity {theirs:.2f}; {len(chosen)} chosen, {best_of:.2f}")
        before, both = chosen, before + chosen  # the round before counts, too
        own = {"own story": [l for l in both if l["kind"] in TALES], "own chat": [l for l in both if l["kind"] not in TALES]}
        groups = replay | {name: chatdata.encode(chat, group) for name, group in own.items() if group}
        last = number == args.first + args.rounds - 1 or time.time() - begin + 2 * (time.time() - start) > args.seconds
        rates = lambda t: args.rate * (min(1, 10 * t + 0.05) if not last or t < 0.3 else max(0.03, (1 - t) / 0.7))
        loss = learn(learner, groups, chat, 65536 if device == "cuda" else 2048, args.steps * (2 if last else 1), rates, number)
        say(f"loss {loss:.3f}")
        check(f"after round {number + 1}")
        if last:
            break
    pool.terminate()


if __name__ == "__main__":
    main()
