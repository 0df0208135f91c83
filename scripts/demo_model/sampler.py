"""Batched sampling: a static KV cache, one row a conversation, finished rows refilled at once.

Rows share prefixes (the examples that show the teacher its style): a prefix is computed once and read
from its own tensor, so a row holds only its prompt and its answer. On a GPU a decode step is one CUDA
graph; on the CPU the same code runs eagerly with attention written out.
"""
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from qwen2 import Qwen2, rotate, rows_attention

try:
    import triton
    import triton.language as tl
except ImportError:  # the CPU path needs none
    triton = None

if triton is not None:
    @triton.jit
    def _scan(q, k_ptr, v_ptr, n, scale, m, l, acc, D: tl.constexpr, BLOCK: tl.constexpr):
        """Online softmax over keys [0, n) at k_ptr."""
        t = tl.arange(0, BLOCK)
        d = tl.arange(0, D)
        for start in range(0, n, BLOCK):
            live = (start + t) < n
            at = (start + t)[:, None] * D + d[None, :]
            k = tl.load(k_ptr + at, mask=live[:, None], other=0.0)
            s = tl.dot(q, tl.trans(k)) * scale
            s = tl.where(live[None, :], s, -1e30)
            new_m = tl.maximum(m, tl.max(s, 1))
            p = tl.exp2(s - new_m[:, None])
            fade = tl.exp2(m - new_m)
            v = tl.load(v_ptr + at, mask=live[:, None], other=0.0)
            l = l * fade + tl.sum(p, 1)
            acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v)
            m = new_m
        return m, l, acc

    @triton.jit
    def _decode(q_ptr, k_ptr, v_ptr, pk_ptr, pv_ptr, prefix_ptr, prefix_len_ptr, len_ptr, out_ptr, scale,
                KV: tl.constexpr, G: tl.constexpr, D: tl.constexpr, T: tl.constexpr, PT: tl.constexpr,
                GP: tl.constexpr, BLOCK: tl.constexpr):
        """One row and key head: its G queries over prefix, then own keys."""
        b, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
        g, d = tl.arange(0, GP), tl.arange(0, D)
        at = (b * KV * G + h * G + g)[:, None] * D + d[None, :]
        q = tl.load(q_ptr + at, mask=(g < G)[:, None], other=0.0)
        m = tl.full([GP], -1e30, tl.float32)
        l = tl.zeros([GP], tl.float32)
        acc = tl.zeros([GP, D], tl.float32)
        p = tl.load(prefix_ptr + b)
        shared = (p * KV + h) * PT * D
        m, l, acc = _scan(q, pk_ptr + shared, pv_ptr + shared, tl.load(prefix_len_ptr + b), scale, m, l, acc, D, BLOCK)
        own = (b * KV + h) * T * D
        m, l, acc = _scan(q, k_ptr + own, v_ptr + own, tl.load(len_ptr + b), scale, m, l, acc, D, BLOCK)
        tl.store(out_ptr + at, (acc / l[:, None]).to(q.dtype), mask=(g < G)[:, None])


@dataclass
class Job:
    """A conversation to continue: prefix + prompt → tokens (the end token not among them)."""
    prefix: int
    prompt: list
    data: object = None
    tokens: list = field(default_factory=list)
    logprob: float = 0.0  # mean over the tokens at temperature 1, end token included
    finished: bool = False  # ended by itself


class Sampler:
    """Continues many jobs at once. prefixes: lists of ids; [[]] for none."""

    def __init__(self, model: Qwen2, prefixes, eos, rows, max_prompt, max_new, temperature, min_p=0.0, seed=0, cut_loops=False):
        self.m, self.eos, self.B, self.P, self.N = model, list(eos), rows, max_prompt, max_new
        self.temperature, self.min_p, self.cut_loops = temperature, min_p, cut_loops
        s = model.shape
        self.device, self.dtype = model.model.norm.weight.device, model.model.norm.weight.dtype
        self.cuda = self.device.type == "cuda"
        self.T, self.PT = max_prompt + max_new, max(8, max(map(len, prefixes)))
        new = lambda *shape: torch.zeros(shape, dtype=self.dtype, device=self.device)
        kv, d = s.num_key_value_heads, s.head_dim
        self.k = [new(rows, kv, self.T, d) for _ in range(s.num_hidden_layers)]
        self.v = [new(rows, kv, self.T, d) for _ in range(s.num_hidden_layers)]
        self.pk = [new(len(prefixes), kv, self.PT, d) for _ in range(s.num_hidden_layers)]
        self.pv = [new(len(prefixes), kv, self.PT, d) for _ in range(s.num_hidden_layers)]
        ints = lambda n: torch.zeros(n, dtype=torch.long, device=self.device)
        self.prefix, self.prefix_len, self.pos, self.token = ints(rows), ints(rows), ints(rows), ints(rows)
        self.lens = torch.tensor([len(p) for p in prefixes], device=self.device)
        self.row = torch.arange(rows, device=self.device)
        self.gen = torch.Generator(self.device).manual_seed(seed)
        for i, ids in enumerate(prefixes):
            if ids:
                self._fill_prefix(i, ids)
        self.chunk = 8  # steps between looks at what finished
        self.out = torch.zeros(self.chunk, rows, dtype=torch.long, device=self.device)
        self.out_lp = torch.zeros(self.chunk, rows, device=self.device)
        self.graph = None

    @torch.no_grad()
    def _fill_prefix(self, i, ids):
        n = len(ids)
        whole = rows_attention(1)

        def attend(layer):
            def f(q, k, v):
                self.pk[layer][i, :, :n], self.pv[layer][i, :, :n] = k.transpose(0, 1), v.transpose(0, 1)
                return whole(layer)(q, k, v)
            return f
        self.m.hidden(torch.tensor(ids, device=self.device), torch.arange(n, device=self.device), attend)

    @torch.no_grad()
    def prefill(self, rows, jobs):
        """Computes the prompts of jobs into rows and draws their first tokens."""
        R = len(jobs)
        longest = max(len(j.prompt) for j in jobs)
        P = min(self.P, -(-longest // 32) * 32)
        host = np.zeros((R, P), np.int64)
        for i, j in enumerate(jobs):
            host[i, :len(j.prompt)] = j.prompt
        pin = lambda a: torch.as_tensor(a, device=self.device)
        ids, n = pin(host), pin(np.array([len(j.prompt) for j in jobs]))
        rows_t, prefix = pin(np.array(rows)), pin(np.array([j.prefix for j in jobs]))
        before = self.lens[prefix]
        positions = (before[:, None] + torch.arange(P, device=self.device)).clamp(max=self.m.shape.max_position_embeddings - 1)
        PT = self.PT
        mask = torch.zeros(R, 1, P, PT + P, dtype=torch.bool, device=self.device)
        mask[..., :PT] = (torch.arange(PT, device=self.device) < before[:, None])[:, None, None]
        mask[..., PT:] = torch.ones(P, P, dtype=torch.bool, device=self.device).tril()

        def attend(layer):
            def f(q, k, v):
                split = lambda x: x.view(R, P, -1, x.shape[-1]).transpose(1, 2)
                q, k, v = split(q), split(k), split(v)
                self.k[layer][rows_t, :, :P], self.v[layer][rows_t, :, :P] = k, v
                k, v = torch.cat([self.pk[layer][prefix], k], 2), torch.cat([self.pv[layer][prefix], v], 2)
                g = q.shape[1] // k.shape[1]
                out = F.scaled_dot_product_attention(q, k.repeat_interleave(g, 1), v.repeat_interleave(g, 1), attn_mask=mask)
                return out.transpose(1, 2).reshape(R * P, -1, q.shape[-1])
            return f
        h = self.m.hidden(ids.flatten(), positions.flatten(), attend).view(R, P, -1)
        token, logprob = self.draw(self.m.logits(h[torch.arange(R, device=self.device), n - 1]))
        self.prefix[rows_t], self.prefix_len[rows_t], self.pos[rows_t], self.token[rows_t] = prefix, before, n, token
        return token, logprob

    def draw(self, logits):
        """A token by temperature and min-p, and its log probability at temperature 1."""
        logits = logits.float()
        lse = logits.logsumexp(-1)
        scaled = logits / self.temperature
        if self.min_p > 0:
            floor = scaled.max(-1, keepdim=True).values + float(np.log(self.min_p))
            scaled = torch.where(scaled < floor, float("-inf"), scaled)
        noise = torch.empty_like(scaled).exponential_(generator=None if self.cuda else self.gen)
        token = (scaled - noise.log()).argmax(-1)
        return token, logits.gather(-1, token[:, None])[:, 0] - lse

    def attention(self, layer, q, k, v):
        self.k[layer][self.row, :, self.pos], self.v[layer][self.row, :, self.pos] = k, v
        B, H, D = q.shape
        KV = k.shape[1]
        if self.cuda:
            out = torch.empty_like(q)
            _decode[(B, KV)](q.contiguous(), self.k[layer], self.v[layer], self.pk[layer], self.pv[layer], self.prefix,
                             self.prefix_len, self.pos + 1, out, D ** -0.5 * 1.4426950408889634, KV=KV, G=H // KV, D=D,
                             T=self.T, PT=self.PT, GP=16, BLOCK=64)
            return out
        n, g = int(self.pos.max()) + 1, H // KV
        keys = torch.cat([self.pk[layer][self.prefix], self.k[layer][:, :, :n]], 2)
        values = torch.cat([self.pv[layer][self.prefix], self.v[layer][:, :, :n]], 2)
        at = torch.arange(self.PT + n, device=self.device)
        live = (at < self.prefix_len[:, None]) | ((at >= self.PT) & (at <= self.PT + self.pos[:, None]))
        scores = (q.view(B, KV, g, D) @ keys.mT) * D ** -0.5
        return (scores.masked_fill(~live[:, None, None], float("-inf")).softmax(-1) @ values).view(B, H, D)

    @torch.no_grad()
    def step(self):
        position = (self.prefix_len + self.pos).clamp(max=self.m.shape.max_position_embeddings - 1)
        h = self.m.hidden(self.token, position, lambda layer: lambda q, k, v: self.attention(layer, q, k, v))
        token, logprob = self.draw(self.m.logits(h))
        self.token.copy_(token)
        self.pos.copy_((self.pos + 1).clamp(max=self.T - 1))
        return token, logprob

    def steps(self):
        for i in range(self.chunk):
            token, logprob = self.step()
            self.out[i], self.out_lp[i] = token, logprob

    def capture(self):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.steps()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.steps()

    def run(self, jobs, deadline=None):
        """Yields finished jobs. jobs is an iterator, not asked any more once deadline() is true."""
        jobs = iter(jobs)
        if self.cuda and self.graph is None:
            self.capture()
        self.active = [None] * self.B
        self.busy = np.zeros(self.B, bool)
        self.count, self.sums = np.zeros(self.B, np.int64), np.zeros(self.B)
        self.tokens = np.zeros((self.B, self.N + self.chunk), np.int64)
        least, most = max(1, min(self.B // 16, 128)), 512 if self.P <= 96 else 128
        more = True
        while True:
            more = more and not (deadline and deadline())
            while more and (self.B - self.busy.sum() >= least or not self.busy.any()):
                batch = list(islice(jobs, min(most, self.B - int(self.busy.sum()))))
                more = bool(batch)
                if batch:
                    self._admit(batch)
            if not self.busy.any():
                return
            if self.graph is not None:
                self.graph.replay()
            else:
                self.steps()
            yield from self._collect()

    def _admit(self, batch):
        rows = np.flatnonzero(~self.busy)[:len(batch)]
        token, logprob = self.prefill(rows, batch)
        self.tokens[rows, 0], self.sums[rows], self.count[rows], self.busy[rows] = token.cpu().numpy(), logprob.cpu().numpy(), 1, True
        for r, j in zip(rows, batch):
            self.active[r] = j

    def _collect(self):
        rows = np.flatnonzero(self.busy)
        out, lps = self.out.cpu().numpy().T[rows], self.out_lp.cpu().numpy().T[rows]
        first_is_end = np.isin(self.tokens[rows, 0], self.eos) & (self.count[rows] == 1)
        end = np.isin(out, self.eos)
        at = np.where(end.any(1), end.argmax(1), self.chunk)  # tokens before the end
        at[first_is_end] = 0
        self.tokens[rows[:, None], self.count[rows][:, None] + np.arange(self.chunk)] = out
        kept = np.arange(self.chunk) <= at[:, None]
        self.sums[rows] += np.where(first_is_end, 0, (lps * kept).sum(1))
        self.count[rows] += at
        self.count[rows[first_is_end]] = 0
        ended = end.any(1) | first_is_end
        over = ended | (self.count[rows] >= self.N - self.chunk) | self._loops(rows)
        for r, e in zip(rows[over], ended[over]):
            job, n = self.active[r], int(self.count[r])
            job.tokens, job.finished, job.logprob = self.tokens[r, :n].tolist(), bool(e), float(self.sums[r]) / (n + bool(e))
            self.active[r], self.busy[r] = None, False
            yield job

    def _loops(self, rows, window=24):
        """Rows whose last tokens repeat what stood just before them: they would go on so to the cap."""
        looping = np.zeros(len(rows), bool)
        if not self.cut_loops:
            return looping
        long = self.count[rows] >= 2 * window
        if long.any():
            r = rows[long]
            last = self.tokens[r[:, None], (self.count[r] - 2 * window)[:, None] + np.arange(2 * window)]
            looping[long] = np.any([(last[:, window:] == last[:, window - s:-s]).all(1) for s in range(1, window + 1)], axis=0)
        return looping
