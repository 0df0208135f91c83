"""From nothing to the first token: Pagoda's server, and llama.cpp's smallest program.

A start is timed from the fork. Pagoda is ready when /health answers 200; llama-simple, which serves
nobody and warms nothing up, when it prints the prompt, its model being loaded. Then 16 tokens are
prefilled; the clock stops at the first token of the answer. Processor time is that of the whole
process (user and system), which neighbours disturb less than the time on the wall.
"""

import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time

PROMPT = "The quick brown fox jumps over the lazy dog and runs into the dark forest."
PROMPT_TOKENS = 16
COLUMNS = ["ready", "first token", "processor time"]


def ended(process, kill):
    """Processor seconds of the process, which is ended if it does not end by itself; 0: it had ended before."""
    if kill:
        process.terminate()
    if process.returncode is not None:  # known from then on: poll has collected it
        return 0
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def said(log):
    """What a process wrote to the file, decoded."""
    log.seek(0)
    return log.read().decode(errors="replace")


def answered(process, port, name, began):
    """Seconds until the server is ready, and until the first token of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while True:  # the port is open from early on, and a request on it waits until the server is ready
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() - began > 60:
                raise
            time.sleep(0.001)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    ready = time.monotonic() - began
    connection.request("POST", "/v1/completions", json.dumps({
        "model": name, "prompt": PROMPT, "max_tokens": 2, "stream": True, "temperature": 0,
        "ignore_eos": True, "stream_options": {"include_usage": True}}), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    line = answer.readline()
    first = time.monotonic() - began
    rest = answer.read().decode()
    assert line.startswith(b"data: "), line
    tokens = int(re.search(r'"prompt_tokens":(\d+)', rest)[1])
    assert tokens == PROMPT_TOKENS, tokens
    return ready, first


def pagoda(directory, threads):
    port = free_port()
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = subprocess.Popen(["bin/pagoda", "serve", directory, "--quiet", "--device", "cpu", "--port", str(port), "--threads", str(threads)],
                                   stdout=subprocess.DEVNULL, stderr=log)
        try:
            ready, first = answered(process, port, os.path.basename(directory), began)
        except (OSError, http.client.HTTPException, AssertionError) as e:
            raise SystemExit(f"bench-peers: pagoda serve {directory} does not answer as it should ({e!r}):\n{said(log)[-2000:]}")
        finally:
            busy = ended(process, True)
    return ready, first, busy


def llama(peer, gguf, threads):
    # llama-simple wants four threads; OpenMP gives it no more than this.
    environment = dict(os.environ, OMP_THREAD_LIMIT=str(threads))
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = subprocess.Popen(["stdbuf", "-o0", f"{peer}/llama-simple", "-m", gguf, "-n", "3", PROMPT],
                                   stdout=subprocess.PIPE, stderr=log, env=environment)
        ready = first = None
        got = 0
        while chunk := os.read(process.stdout.fileno(), 4096):
            now, got = time.monotonic() - began, got + len(chunk)
            ready = ready or now
            if got > len(PROMPT):
                first = first or now
        busy = ended(process, False)
        text = said(log)
    if first is None or not re.search(rf"/ +{PROMPT_TOKENS} tokens", text):
        raise SystemExit(f"bench-peers: llama-simple did not answer a prompt of {PROMPT_TOKENS} tokens:\n{text[-2000:]}")
    return ready, first, busy


def compare(peer, name, directory, gguf, threads, repeats):
    """Prints both engines' starts, in turn.

    Each follows one of the same engine at once, which is not kept: it fills the page cache, and
    brings back the memory that a virtual machine's host takes from a guest that does not use it.
    """
    starts = {"Pagoda": lambda: pagoda(directory, threads), "llama.cpp": lambda: llama(peer, gguf, threads)}
    times = {engine: [] for engine in starts}
    for _ in range(repeats):
        for engine, start in starts.items():
            start()
            times[engine].append(start())
    print(f"{name}, bfloat16, page cache warm, {threads} threads: seconds from the start of the process, median (least) of {repeats}")
    print(f"{'':12}" + "".join(f"{c:>24}" for c in COLUMNS))
    for engine, runs in times.items():
        print(f"{engine:12}" + "".join(f"{f'{statistics.median(c):.3f} ({min(c):.3f})':>24}" for c in zip(*runs)))
    print(flush=True)
