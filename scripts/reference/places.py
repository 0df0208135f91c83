"""How far rounding moves transformers' own log probabilities: in each place of oracle.PLACES alone, in all but it, and
where Pagoda rounds. What a format costs, whatever the kernels."""
import sys

import compare
import oracle

HEADER = ["model", "rounded", "mean Δ", "max Δ (beyond)", "99.9 %"]


def table(name: str, model, lines: list) -> list:
    """Rows of the table; lines are prompts."""
    sequences = [{"id": line["id"], "ids": line["prompt"], "prompt_tokens": len(line["prompt"])} for line in lines if len(line["prompt"]) > 1]
    every = dict.fromkeys(oracle.PLACES, oracle.bf16)
    variants = [(f"{place}, bfloat16", {place: oracle.bf16}) for place in oracle.PLACES]
    variants += [("all, bfloat16", every)]
    variants += [(f"all but {place}", {p: to for p, to in every.items() if p != place}) for place in oracle.PLACES]
    variants += [("as on a CPU", oracle.KEPT["cpu"]), ("as on a GPU", oracle.KEPT["cuda"])]
    exact, rows = scores(model, sequences, {}), []
    for what, places in variants:
        got = scores(model, sequences, places)
        rows.append(row(name, what, exact, got))
        print(f"reference: {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
        if places is oracle.KEPT["cpu"]:
            cpu = got
    return [*rows, row(name, "CPU against GPU", cpu, got)]


def scores(model, sequences: list, places: dict) -> list:
    with oracle.rounded(model, places):
        return [oracle.score(model, s) for s in sequences]


def row(name: str, what: str, reference: list, got: list) -> list:
    c = compare.compare(reference, got)
    deltas = sorted(abs(a - b) for r, g in zip(reference, got) for a, b in zip(r["logprobs"], g["logprobs"]))
    return [name, what, f"{c.mean:.4f}", f"{c.most:.3f} ({c.beyond})", f"{deltas[len(deltas) * 999 // 1000]:.3f}"]
