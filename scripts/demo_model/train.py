#!/usr/bin/env python3
"""Stage 4: train the student. One process a GPU: `torchrun --nproc-per-node N train.py …`, or plain python for one.

    train.py TOKENIZER_DIR OUTPUT_DIR --corpus FILE… --held FILE… [--tokens 500e6] [--seconds 400] [--smoke]

Writes model.safetensors (float32) and config.json; --seconds shortens the schedule to what the machine can do.
"""
import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

import chatdata
from qwen2 import Qwen2, Shape

ADAM_RATE = 0.004
WEIGHTS = {"story": 0.46, "chat": 0.42, "teacher story": 0.0, "teacher chat": 0.12}


def attention(bounds, tokens, cuda):
    """Causal attention within sequences that end at bounds."""
    if cuda:
        from torch.nn.attention.varlen import varlen_attn

        def attend(q, k, v):
            g = q.shape[1] // k.shape[1]
            return varlen_attn(q, k.repeat_interleave(g, 1), v.repeat_interleave(g, 1), bounds, bounds,
                               chatdata.LONGEST, chatdata.LONGEST, window_size=(-1, 0))
    else:
        segment = torch.bucketize(torch.arange(tokens), bounds.long(), right=True)
        mask = (segment[:, None] == segment[None]).tril()

        def attend(q, k, v):
            t = lambda x: x.transpose(0, 1)[None]
            return F.scaled_dot_product_attention(t(q), t(k), t(v), attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)
    return lambda layer: attend


def orthogonal(g):
    """Newton-Schulz iteration towards the nearest orthogonal matrix, [n, rows, cols] (Jordan et al., Muon)."""
    x = g.bfloat16()
    wide = x.shape[1] > x.shape[2]
    if wide:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if wide else x


class Muon:
    """Muon over matrices, all of one shape at once."""

    def __init__(self, params, lr=0.02, momentum=0.95, decay=0.02):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.state = {s: torch.zeros(len(ps), *s, device=ps[0].device) for s, ps in self.groups.items()}
        self.lr, self.momentum, self.decay = lr, momentum, decay

    @torch.no_grad()
    def step(self, scale):
        for shape, ps in self.groups.items():
            g, m = torch.stack([p.grad for p in ps]), self.state[shape]
            m.lerp_(g, 1 - self.momentum)
            update = orthogonal(g.lerp(m, self.momentum)).float() * max(1, shape[0] / shape[1]) ** 0.5
            lr = self.lr * scale
            torch._foreach_mul_(ps, 1 - lr * self.decay)
            torch._foreach_add_(ps, list(update.unbind()), alpha=-lr)


def initialize(model):
    torch.manual_seed(0)
    for name, p in model.named_parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.02)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                torch.nn.init.zeros_(p)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)


def save(model, directory: Path):
    directory.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().float().contiguous().cpu() for k, v in model.state_dict().items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(model.shape.dict()))


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("tokenizer", type=Path)
    p.add_argument("output", type=Path)
    p.add_argument("--corpus", nargs="+", required=True, help="corpus.py's files, and written.py's with a leading +")
    p.add_argument("--held", nargs="+", required=True)
    p.add_argument("--tokens", type=float, default=600e6)
    p.add_argument("--seconds", type=float, default=400, help="of training, compilation not counted")
    p.add_argument("--batch", type=int, default=65536, help="tokens of a step on one GPU")
    p.add_argument("--best", type=float, default=0.4, help="share of the teacher's answers that is used")
    p.add_argument("--keep", choices=("last", "best"), default="last", help="which checkpoint: the last, or that of the least held-out loss")
    p.add_argument("--smoke", action="store_true", help="a tiny model, for trying the script on a CPU")
    return p.parse_args()


class Learner:
    """Student, optimizers and the compiled loss on one device."""

    def __init__(self, model, device, world):
        self.model, self.device, self.world, self.cuda = model, device, world, device != "cpu"
        matrix = lambda n, p: p.ndim == 2 and ".layers." in n
        named = list(model.named_parameters())
        self.muon = Muon([p for n, p in named if matrix(n, p)])
        self.adam = torch.optim.AdamW([p for n, p in named if not matrix(n, p)], lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=self.cuda)
        self.loss = torch.compile(self._loss, dynamic=False) if self.cuda else self._loss

    def _loss(self, ids, targets, positions, bounds):
        with torch.autocast("cuda" if self.cuda else "cpu", torch.bfloat16):
            hidden = self.model.hidden(ids, positions, attention(bounds, len(ids), self.cuda))
            logits = self.model.logits(hidden)
        return F.cross_entropy(logits.float(), targets, ignore_index=-1)

    def load(self, batch):
        return [x.to(self.device, non_blocking=True) for x in batch]

    @torch.no_grad()
    def check(self, batches) -> float:
        return sum(self.loss(*self.load(b)).item() for b in batches) / len(batches)

    def step(self, batch, scale):
        loss = self.loss(*self.load(batch))
        loss.backward()
        params = list(self.model.parameters())
        if self.world > 1:
            flat = torch._utils._flatten_dense_tensors([q.grad for q in params])
            dist.all_reduce(flat, dist.ReduceOp.AVG)
            for q, g in zip(params, torch._utils._unflatten_dense_tensors(flat, params)):
                q.grad.copy_(g)
        self.muon.step(scale)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * scale
        self.adam.step()
        for q in params:
            q.grad = None
        return loss.detach()


def schedule(i: int, steps: int) -> float:
    """Factor of the learning rates: warm up, stay, fall linearly."""
    through, warmup = i / steps, min(100, steps // 5)
    return min(1, (i + 1) / warmup) * (1 if through < 0.3 else max(0.02, (1 - through) / 0.7))


def main():
    args = arguments()
    rank, world, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    cuda = torch.cuda.is_available()
    device = f"cuda:{local}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(local)
    if world > 1:
        dist.init_process_group("nccl")
    begin = time.time()
    say = lambda *a: print(f"[{time.time() - begin:6.1f} s]", *a, flush=True) if rank == 0 else None

    chat = chatdata.Chat(Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")))
    lines = []
    for path in args.corpus:
        lines += [{**l, "written": path[0] == "+"} for l in chatdata.read([path.lstrip("+")])]
    groups = {name: chatdata.encode(chat, group) for name, group in chatdata.classes(lines, args.best).items()}
    say("corpus:", {n: f"{len(g)} conversations, {sum(map(len, g)) / 1e6:.1f} M tokens" for n, g in groups.items()})
    held = [line for path in args.held for line in chatdata.read([path])[:3000]]
    held = chatdata.encode(chat, held)
    batches = chatdata.stream(chatdata.Batches(chat, groups, WEIGHTS, args.batch, seed=rank), workers=6 if cuda else 0)
    checks = chatdata.stream(chatdata.Batches(chat, {"held": held}, {"held": 1}, args.batch, seed=99), workers=0)
    checks = [next(checks) for _ in range(4 if cuda else 1)]

    vocab = chat.tokenizer.get_vocab_size()
    shape = Shape(vocab, 64, 128, 2, 2, 1) if args.smoke else Shape(vocab, 384, 1024, 8, 6, 2)
    model = Qwen2(shape).to(device)
    initialize(model)
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    learner = Learner(model, device, world)
    planned = max(10, int(args.tokens / (args.batch * world)))
    steps, probe, best = planned, 30, float("inf")
    start = time.time()
    i = 0
    while i < steps:
        loss = learner.step(next(batches), schedule(i, steps))
        i += 1
        if i == 10 or i == probe:
            loss.item()
            if i == 10:
                say("compiled"), (start := time.time())
            else:  # every rank takes the slowest rank's plan
                plan = torch.tensor(min(planned, int(args.seconds / ((time.time() - start) / (probe - 10)))), device=device)
                if world > 1:
                    dist.all_reduce(plan, dist.ReduceOp.MIN)
                steps = max(probe + 1, int(plan))
                say(f"{args.batch * world * (probe - 10) / (time.time() - start):.0f} tok/s; {steps} steps")
        if i % 200 == 0 or i == steps:
            held_out = learner.check(checks)
            say(f"step {i}/{steps}: loss {loss.item():.4f}, held out {held_out:.4f}")
            if rank == 0 and (args.keep == "last" or held_out < best):
                save(model, args.output)
            best = min(best, held_out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
