#!/usr/bin/env python3
"""Stage 3: the student's tokenizer: byte-level BPE learned on the corpus, in all else Qwen2.5's.

    tokenizer.py QWEN_TOKENIZER.json[.gz] QWEN_TOKENIZER_CONFIG.json OUTPUT_DIR CORPUS.jsonl… [--size 4096]

Normalizer, split, decoder and the 22 added tokens with their flags are those of Qwen2.5's tokenizer.json;
vocabulary and merges are learned. The added tokens come last, as there.
"""
import argparse
import gzip
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, models, trainers


def read(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def texts(paths, limit: int):
    """Texts of the corpus, in a random but fixed order."""
    lines = [line for path in paths for line in path.open()]
    random.Random(0).shuffle(lines)
    for line in lines[:limit]:
        for question, answer in json.loads(line)["turns"]:
            yield question
            yield answer


def main():
    p = argparse.ArgumentParser()
    p.add_argument("qwen", type=Path)
    p.add_argument("qwen_config", type=Path)
    p.add_argument("output", type=Path)
    p.add_argument("corpus", type=Path, nargs="+")
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--limit", type=int, default=300000)
    args = p.parse_args()
    qwen, config = read(args.qwen), read(args.qwen_config)
    added = qwen["added_tokens"]
    # Learn with Qwen's own split; its added tokens take no part.
    blank = {**qwen, "added_tokens": [], "model": {**qwen["model"], "vocab": {}, "merges": []}}
    learner = Tokenizer.from_str(json.dumps(blank))
    learner.model = models.BPE()
    from tokenizers.pre_tokenizers import ByteLevel
    trainer = trainers.BpeTrainer(vocab_size=args.size - len(added), initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False)
    # A few chats in the template's own words keep "system", "user" and the tool markup short.
    template = [config["chat_template"]] * 50 + ["system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "user\n", "assistant\n"] * 5000
    learner.train_from_iterator(list(texts(args.corpus, args.limit)) + template, trainer)
    learned = json.loads(learner.to_str())["model"]
    first = len(learned["vocab"])
    assert first + len(added) == args.size, (first, len(added))
    ids = {t["content"]: first + i for i, t in enumerate(added)}
    out = {**qwen, "added_tokens": [{**t, "id": ids[t["content"]]} for t in added],
           "model": {**qwen["model"], "vocab": learned["vocab"], "merges": [" ".join(m) if isinstance(m, list) else m for m in learned["merges"]]}}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "tokenizer.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")))
    config["added_tokens_decoder"] = {str(ids[t["content"]]): t for _, t in sorted(config["added_tokens_decoder"].items(), key=lambda e: int(e[0]))}
    config["model_max_length"] = 2048
    (args.output / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")
    done = Tokenizer.from_file(str(args.output / "tokenizer.json"))
    sample = "Once upon a time, there was a little fox who lived in the forest."
    print(f"{args.size} tokens; {len(sample) / len(done.encode(sample).ids):.2f} characters a token; {done.encode(sample).tokens}")


if __name__ == "__main__":
    main()
