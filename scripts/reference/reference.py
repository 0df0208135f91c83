#!/usr/bin/env python3
"""Compare Pagoda with transformers in float32, token by token and layer by layer.

    reference.py [MODEL…]

MODEL is qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b or tiny (true shapes with random weights, made here; the 7B in
shards), or a directory with a checkpoint and tokenizer.json. Pagoda continues the prompts greedily, in batches;
transformers scores prompts and continuations. With --cpu Pagoda's two devices are compared, too. With --places
transformers alone is measured: how far rounding in each place of a layer moves it.

Every part is kept in --work and not done again. Exit code 1: a model is beyond the tolerance.
"""
import argparse
import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import compare
import prompts

HERE = Path(__file__).resolve().parent
TINY = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", "hidden_act": "silu",
    "num_hidden_layers": 3, "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": True, "use_sliding_window": False, "bos_token_id": 0, "eos_token_id": 1,
}
SHAPES = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "tiny")


def first(*paths: Path) -> Path:
    """Where a file lies: in the archive beside this script, or in the tree."""
    return next((p for p in paths if p.exists()), paths[-1])


def say(text: str) -> None:
    print(f"reference: {text}", file=sys.stderr, flush=True)


def results_of(pagoda: Path, flags: str) -> str:
    """Tells results apart that come of another binary, whose version may be the same, or of other flags."""
    return hashlib.sha256(pagoda.read_bytes() + flags.encode()).hexdigest()[:12]


class Run:
    """A model's comparison; its files are in work/<results>-<prompts>/<model>."""

    def __init__(self, args: argparse.Namespace, model: str):
        self.args, self.name, self.shape, self.cpu = args, Path(model).name, model in SHAPES, model in args.cpu
        self.weights = args.work / "weights" / model if self.shape else Path(model)
        self.dir = args.work / f"{results_of(args.pagoda, args.flags)}-{args.prompts}" / self.name
        self.dir.mkdir(parents=True, exist_ok=True)
        self.oracle = None

    def config(self) -> dict:
        if self.name == "tiny":
            return TINY
        directory = f"{self.name}-instruct"
        path = first(HERE / "configs" / directory, HERE.parents[1] / "model" / "testdata" / directory)
        return json.loads((path / "config.json").read_text())

    def make_weights(self) -> None:
        if not self.shape or (self.weights / "config.json").exists():
            return
        import shapes
        import torch

        start = time.monotonic()
        shutil.rmtree(self.weights, ignore_errors=True)
        device = self.args.device if torch.cuda.is_available() else "cpu"
        shapes.make(self.weights, self.config(), device, seed=SHAPES.index(self.name))
        say(f"{self.name}: weights made in {time.monotonic() - start:.0f} s")

    def make_prompts(self) -> Path:
        path = self.dir / "prompts.jsonl"
        if not path.exists():
            if self.shape:
                lines = prompts.of_random_ids(self.config()["vocab_size"], self.args.prompts)
            else:
                lines = prompts.of_texts(self.weights, [first(HERE / "alice.txt", HERE.parents[1] / "testdata/text/alice.txt")], self.args.prompts)
            compare.write(path, lines)
        return path

    def score(self, device: str, lines: Path) -> list:
        """What Pagoda makes of the lines."""
        path = self.dir / f"pagoda-{device}-{lines.stem}.jsonl"
        if not path.exists():
            command = [self.args.pagoda, "score", self.weights, lines, "--device", device, "--quiet", "--swap-space", "0",
                       "--hidden", self.dir / f"hidden-{device}", *self.args.flags.split()]
            if device == "cuda":  # the rest is for torch's own context
                command += ["--gpu-memory-utilization", "0.8"]
            start, part = time.monotonic(), path.with_name(path.name + ".part")
            with part.open("w") as out:
                subprocess.run([str(c) for c in command], stdout=out, check=True)
            part.rename(path)
            say(f"{self.name}: pagoda on {device} took {time.monotonic() - start:.0f} s")
        return compare.read(path)

    def load(self):
        if self.oracle is None:
            import oracle

            start = time.monotonic()
            self.oracle = oracle.load(self.weights, self.args.device)
            say(f"{self.name}: transformers loaded in {time.monotonic() - start:.0f} s")
        return self.oracle

    def reference(self, scores: list, device: str) -> list:
        path = self.dir / f"transformers-{device}.jsonl"
        if not path.exists():
            import oracle

            model, start, out = self.load(), time.monotonic(), []
            for i, s in enumerate(scores):
                out.append(oracle.score(model, s))
                if sys.stderr.isatty():
                    print(f"\rtransformers: {i + 1} of {len(scores)} ", end="", file=sys.stderr)
            compare.write(path, out)
            say(f"{self.name}: transformers took {time.monotonic() - start:.0f} s")
        return compare.read(path)

    def places(self) -> list:
        """Rows of the table of what rounding in each place costs."""
        import places

        self.make_weights()
        rows = places.table(self.name, self.load(), compare.read(self.make_prompts()))
        self.free()
        return rows

    def layers(self, scores: list, reference: list, device: str) -> dict:
        """The greatest difference of each layer over the prompts that have hidden states; the same, and differences
        of log probabilities, of transformers itself where it rounds as the engine does; the attention's entropy."""
        path = self.dir / f"layers-{device}.json"
        if not path.exists():
            import oracle

            model, found = self.load(), {"pagoda": [], "format": [], "entropy": []}
            chosen = [i for i, s in enumerate(scores) if "hidden" in s]
            for i in chosen:
                ids = scores[i]["ids"][:scores[i]["prompt_tokens"]]
                want = oracle.hidden_states(model, ids)
                found["pagoda"].append(oracle.relative(want, oracle.stored(self.dir / f"hidden-{device}" / scores[i]["hidden"], want)))
                found["entropy"].append(oracle.entropy(model, ids))
                with oracle.rounded(model, oracle.KEPT[device]):
                    found["format"].append(oracle.relative(want, oracle.hidden_states(model, ids)))
            with oracle.rounded(model, oracle.KEPT[device]):
                c = compare.compare(reference, [oracle.score(model, s) for s in scores])
            path.write_text(json.dumps({
                "pagoda": [max(layer) for layer in zip(*found["pagoda"])], "format": [max(layer) for layer in zip(*found["format"])],
                "entropy": sum(found["entropy"]) / len(chosen), "mean": c.mean, "most": c.most, "beyond": c.beyond}))
        return json.loads(path.read_text())

    def rows(self) -> list:
        """Rows of the table."""
        self.make_weights()
        lines, device = self.make_prompts(), self.args.device
        scores = self.score(device, lines)
        reference = self.reference(scores, device)
        layers = self.layers(scores, reference, device)
        table = [self.row(f"transformers, {device}", compare.compare(reference, scores), layers)]
        say(f"{self.name}: layer by layer {' '.join(f'{d:.4f}' for d in layers['pagoda'])}; attention's entropy {layers['entropy']:.2f} nats")
        self.free()
        if self.cpu and device == "cuda":
            again = self.dir / "again.jsonl"  # prompts and continuations of the GPU, as prompts
            compare.write(again, [{"id": s["id"], "prompt": s["ids"]} for s in scores])
            table.append(self.row("Pagoda's cpu, cuda", compare.compare(self.score("cpu", again), scores), None))
        return table

    def row(self, sides: str, c: compare.Comparison, layers: dict | None) -> list:
        ok = c.within and (layers is None or max(layers["pagoda"]) <= compare.LAYER)
        say(f"{self.name}, {sides}: greatest difference at sequence {c.most_at}; the widest gap where argmax differs {c.widest:.4f}")
        inside = ["–", "–"]
        if layers:
            inside = [f"{max(layers['pagoda']):.4f}", f"{layers['mean']:.4f}, {layers['most']:.2f} ({layers['beyond']}), {max(layers['format']):.4f}"]
        return [self.name, sides, str(c.prompts), f"{c.tokens:,}", f"{c.mean:.4f}", f"{c.most:.3f} ({c.beyond})", f"{c.decode_mean:.4f}, {c.decode_most:.3f}",
                f"{c.parted} ({c.parted_apart})", *inside, "ok" if ok else "MISSED"]

    def free(self) -> None:
        if self.oracle is not None:
            import torch

            self.oracle = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


HEADER = ["model", "between", "prompts", "tokens", "mean Δ", "max Δ (beyond)", "of decode", "argmax ≠ (apart)", "layer", "format: mean, max (beyond), layer", "verdict"]


def table_header(of_places: bool) -> list:
    if not of_places:
        return HEADER
    import places

    return places.HEADER


def machine() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        name, driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(", ")
        return f"{name}, driver {driver}"
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "no GPU"


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="*", metavar="MODEL", default=SHAPES[:3])
    ap.add_argument("--device", choices=("cuda", "cpu"), help="of both sides (default: cuda where there is a driver)")
    ap.add_argument("--cpu", action="append", default=[], metavar="MODEL", help="compare the CPU with the GPU on this model, too")
    ap.add_argument("--places", action="store_true", help="only what rounding in each place costs transformers")
    ap.add_argument("--prompts", type=int, default=220)
    ap.add_argument("--pagoda", type=Path, default=first(HERE.parent / "pagoda", HERE.parents[1] / "bin" / "pagoda"), help="the binary")
    ap.add_argument("--flags", default="", help="further flags of pagoda score")
    ap.add_argument("--work", type=Path, default=first(HERE.parents[1] / ".cache", HERE.parent) / "reference", help="directory for weights and results")
    args = ap.parse_args()
    args.device = args.device or ("cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu")
    for model in args.models:
        if model not in SHAPES and not (Path(model) / "config.json").is_file():
            ap.error(f"{model}: not one of {', '.join(SHAPES)}, and not a directory with config.json")
    if not os.access(args.pagoda, os.X_OK):
        ap.error(f"{args.pagoda}: no such program; make build makes it, --pagoda names another")
    table = []
    for model in args.models:
        table += Run(args, model).places() if args.places else Run(args, model).rows()
    version = subprocess.run([args.pagoda, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    print(f"{date.today()}, {machine()}, commit {version}: scripts/reference/make.sh {' '.join(sys.argv[1:])}\n")
    header = table_header(args.places)
    for row in [header, ["---"] * len(header), *table]:
        print("| " + " | ".join(row) + " |")
    if args.places:
        return 0
    missed = sum(row[-1] != "ok" for row in table)
    if missed:
        say(f"{missed} of {len(table)} comparisons are beyond the tolerance (mean {compare.MEAN}, max {compare.MOST}, "
            f"argmax where the gap is {compare.GAP} or more, a layer {compare.LAYER})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
