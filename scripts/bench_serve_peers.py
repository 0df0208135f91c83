"""Compares the latencies that `pagoda bench serve` and guidellm measure of the same servers.

Started by bench-serve-peers.sh, which installs what this needs. Each round makes prompts of words in
an order of its own, alike in length and never twice the same, so that no server has one in its cache;
the two clients take turns in going first. One request is in flight at a time. guidellm's
inter_token_latency_ms is what vLLM calls TPOT: (last token - first token) / (tokens - 1).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PROMPTS, WORDS, OUTPUT = 15, 60, 16
WORD_LIST = ("time year people way day man thing woman life child world school state family student group country problem hand "
             "part place case week company system program question work government number night point home water room mother").split()


def start(command, url):
    """Starts a server and waits until it lists its model."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(120):
        if server.poll() is not None:
            sys.exit(f"bench-serve-peers: {command[0]} ended with {server.returncode}")
        try:
            with urllib.request.urlopen(url + "/v1/models", timeout=2) as answer:
                return server, json.load(answer)["data"][0]["id"]
        except OSError:
            time.sleep(0.5)
    server.kill()
    sys.exit(f"bench-serve-peers: {command[0]} does not answer on {url}")


def run(command):
    # guidellm's worker processes poll: more of them than there are idle cores would slow the server.
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GUIDELLM__MAX_WORKER_PROCESSES": "1"})
    if done.returncode != 0:
        sys.exit(f"bench-serve-peers: {' '.join(command)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def with_guidellm(args, url, model, prompts, out):
    run([f"{args.guidellm}/bin/guidellm", "run", "--backend", f"kind=openai_http,target={url},request_format=/v1/completions,model={model},validate_backend=false",
         "--profile", "kind=concurrent,streams=1", "--constraint", f"kind=max_requests,count={PROMPTS}",
         "--tokenizer", f"kind=huggingface_auto,model={args.model}", "--data", f"kind=json_file,path={prompts}",
         "--output", f"kind=json,path={out}", "--disable-console"])
    with open(out) as f:
        requests = json.load(f)["benchmarks"][0]["requests"]["successful"]
    return [r["time_to_first_token_ms"] for r in requests], [r["inter_token_latency_ms"] for r in requests]


def with_pagoda(args, url, model, prompts, out):
    run(["bin/pagoda", "bench", "serve", "-q", "--base-url", url, "--model", model, "--dataset-name", "jsonl", "--dataset-path", prompts,
         "--num-prompts", str(PROMPTS), "--max-concurrency", "1", "--ignore-eos", "--tokenizer", args.model,
         "--save-result", "--save-detailed", "--result-dir", os.path.dirname(out), "--result-filename", os.path.basename(out)])
    with open(out) as f:
        r = json.load(f)
    ttft = [1000 * t for t in r["ttfts"]]
    tpot = [1000 * (e2e - t) / (n - 1) for e2e, t, n in zip(r["latencies"], r["ttfts"], r["output_lens"]) if n > 1]
    return ttft, tpot


def compare(args, name, url, model, work):
    clients = [("guidellm", with_guidellm), ("pagoda", with_pagoda)]
    found = {client: ([], []) for client, _ in clients}
    words = random.Random(name)
    for number in range(args.rounds):
        for client, measure in clients if number % 2 == 0 else reversed(clients):
            prompts = f"{work}/prompts.jsonl"
            with open(prompts, "w") as f:
                for _ in range(PROMPTS):
                    prompt = " ".join(words.choice(WORD_LIST) for _ in range(WORDS))
                    f.write(json.dumps({"prompt": prompt, "output_tokens": OUTPUT, "output_tokens_count": OUTPUT}) + "\n")
            for all_values, values in zip(found[client], measure(args, url, model, prompts, f"{work}/{client}.json")):
                all_values += values
    for i, quantity in enumerate(["TTFT", "TPOT"]):
        theirs, ours = (statistics.median(found[client][i]) for client, _ in clients)
        print(f"{name:16s} {quantity} p50: guidellm {theirs:8.2f} ms, pagoda {ours:8.2f} ms, ratio {ours / theirs:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ["--model", "--llama", "--guidellm", "--gguf"]:
        parser.add_argument(flag, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    servers = [
        ("pagoda", ["bin/pagoda", "serve", args.model, "--threads", "1", "--port", "18460"], "http://127.0.0.1:18460"),
        ("llama-cpp-python", [f"{args.llama}/bin/python", "-m", "llama_cpp.server", "--model", args.gguf, "--n_threads", "1", "--n_threads_batch", "1",
                              "--n_ctx", "2048", "--interrupt_requests", "False", "--port", "18450"], "http://127.0.0.1:18450"),
    ]
    with tempfile.TemporaryDirectory() as work:
        for name, command, url in servers:
            server, model = start(command, url)
            try:
                compare(args, name, url, model, work)
            finally:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
