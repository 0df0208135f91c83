"""Times Pagoda and llama.cpp in turn on models of equal shape and random weights.

Parts (--parts), each with ratios within a round, since the speed of a shared machine drifts:
  rates      decode and prefill, bfloat16 and 8-bit; beside Pagoda's, their share of what the
             machine's read bandwidth (decode) or multiply-adds (prefill), probed in that run, allow;
             int8's prefill, too, stands beside bfloat16's multiply-adds, and may exceed them
  invariant  the same with --batch-invariant, as a ratio to the run without
  neighbour  what either engine keeps of its rates beside a process that spins on one of the cores
  starts     from the start of the process to ready and to the first token (peer_starts.py)

Each round runs Pagoda, then llama.cpp; printed are medians, and the median of the rounds' ratios.
Only the standard library is needed.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys

import peer_models
import peer_starts

BATCHES = [1, 8, 16]
PROMPT, CONTEXT, OUTPUT = 512, 16, 48
ROWS = [f"decode, batch {b}" for b in BATCHES] + [f"prefill, {PROMPT} tokens"]
PARTS = ["rates", "invariant", "neighbour", "starts"]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench-peers: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def pagoda(model, threads, extra):
    """Tokens a second and per cent of the roofline by row, and the line of probes."""
    out = run(["bin/pagoda", "bench", "roofline", model, "--device", "cpu", "--load-format", "dummy", "--repeats", "1", "--quiet",
               "--threads", str(threads), "--batch-sizes", ",".join(map(str, BATCHES)), "--prompt-tokens", str(PROMPT),
               "--output-tokens", str(OUTPUT), "--max-num-seqs", "16", *extra])
    rates, shares = {}, {}
    for row in ROWS:
        found = re.search(re.escape(row) + r"\s+([\d.]+)\D+([\d.]+)", out)
        if not found:
            sys.exit(f"bench-peers: no row {row!r} in:\n{out}")
        rates[row], shares[row] = float(found[1]), float(found[2])
    return rates, shares, next((line for line in out.splitlines() if line.startswith("probed")), "")


def llama(peer, gguf, threads):
    out = run([f"{peer}/llama-batched-bench", "-m", gguf, "-t", str(threads), "-c", "2048", "-npp", str(CONTEXT),
               "-ntg", str(OUTPUT), "-npl", ",".join(map(str, BATCHES)), "--output-format", "jsonl"])
    rates = {}
    for line in out.splitlines():
        if line.startswith("{"):
            r = json.loads(line)
            rates[f"decode, batch {r['pl']}"] = r["speed_tg"]
    out = run([f"{peer}/llama-bench", "-m", gguf, "-t", str(threads), "-p", str(PROMPT), "-n", "0", "-r", "1", "-o", "json"])
    rates[ROWS[-1]] = json.loads(out)[0]["avg_ts"]
    return rates


@contextlib.contextmanager
def neighbour():
    """A process that spins on the first core that this one may use."""
    core = min(os.sched_getaffinity(0))
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()


def files(o, model):
    """The model's name and its GGUFs, made where they are missing."""
    name = os.path.basename(os.path.normpath(model))
    gguf, q8 = f"{o.work}/{name}-bf16.gguf", f"{o.work}/{name}-q8_0.gguf"
    if not os.path.exists(gguf):
        peer_models.write_gguf(gguf, peer_models.shape_of(model))
    if not os.path.exists(q8):
        run([f"{o.peer}/llama-quantize", gguf, q8, "q8_0", str(o.threads)])
    return name, gguf, q8


def ratio(over, under, row):
    """The median of the rounds' ratios."""
    return statistics.median(a[row] / b[row] for a, b in zip(over, under))


def median(rounds, row):
    return statistics.median(r[row] for r in rounds)


def compare_rates(o, model):
    name, gguf, q8 = files(o, model)
    kinds = [("bfloat16", gguf, [])]
    if "rates" in o.parts:
        kinds.append(("int8 : q8_0", q8, ["--quantization", "int8"]))
    ours, shares, theirs = ({k[0]: [] for k in kinds} for _ in range(3))
    invariant = []
    for _ in range(o.repeats):
        for kind, path, extra in kinds:
            rates, share, probes = pagoda(model, o.threads, extra)
            print(f"{name} {kind}: {probes}", flush=True)
            ours[kind].append(rates)
            shares[kind].append(share)
            if "rates" in o.parts:
                theirs[kind].append(llama(o.peer, path, o.threads))
            if "invariant" in o.parts and not extra:
                invariant.append(pagoda(model, o.threads, ["--batch-invariant"])[0])
    print(f"\n{name}, {o.threads} threads, medians of {o.repeats}\n{'':34}{'Pagoda':>9}{'roofline %':>12}{'llama.cpp':>11}{'ratio':>8}")
    for kind, _, _ in kinds:
        for row in ROWS:
            line = f"{kind + ', ' + row:34}{median(ours[kind], row):9.1f}{median(shares[kind], row):12.0f}"
            if theirs[kind]:
                line += f"{median(theirs[kind], row):11.1f}{ratio(ours[kind], theirs[kind], row):8.2f}"
            print(line)
    if invariant:
        print("with --batch-invariant, bfloat16: " + "; ".join(f"{row} {ratio(invariant, ours['bfloat16'], row):.2f}" for row in ROWS) + " times as fast")
    print(flush=True)


def compare_neighbour(o, model):
    name, gguf, _ = files(o, model)
    engines = {"Pagoda": lambda: pagoda(model, o.threads, [])[0], "llama.cpp": lambda: llama(o.peer, gguf, o.threads)}
    quiet, busy = ({e: [] for e in engines} for _ in range(2))
    for _ in range(o.repeats):
        for engine, measure in engines.items():
            quiet[engine].append(measure())
            with neighbour():
                busy[engine].append(measure())
    print(f"{name}, bfloat16, {o.threads} threads, a process spinning on one core: per cent kept of the quiet rate, medians of {o.repeats}")
    print(f"{'':34}" + "".join(f"{e:>11}" for e in engines))
    for row in ROWS:
        print(f"{row:34}" + "".join(f"{100 * ratio(busy[e], quiet[e], row):11.0f}" for e in engines))
    print(flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", required=True, help="directory of llama.cpp's binaries")
    p.add_argument("--work", required=True, help="directory for model files")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--parts", default=",".join(PARTS), help="comma-separated (default: %(default)s)")
    p.add_argument("models", nargs="+")
    o = p.parse_args()
    o.parts = o.parts.split(",")
    if unknown := set(o.parts) - set(PARTS):
        sys.exit(f"bench-peers: no part {', '.join(sorted(unknown))}; want some of {', '.join(PARTS)}")
    os.makedirs(o.work, exist_ok=True)
    for model in o.models:
        if {"rates", "invariant"} & set(o.parts):
            compare_rates(o, model)
        if "neighbour" in o.parts:
            compare_neighbour(o, model)
        if "starts" in o.parts and model not in peer_models.SHAPES:
            print(f"bench-peers: no starts of {model}: they are measured of {', '.join(peer_models.SHAPES)}", file=sys.stderr)
        elif "starts" in o.parts:
            directory, gguf = peer_models.with_text(o.work, model)
            peer_starts.compare(o.peer, model, directory, gguf, o.threads, max(5, o.repeats))


if __name__ == "__main__":
    main()
