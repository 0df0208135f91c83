"""The sequences that are compared: the lines that `pagoda score` reads."""
import random
from pathlib import Path

# Around the sizes of blocks, tiles and chunks.
EDGES = (1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)
LONGEST, LONG, LONG_PROMPTS = 300, 1900, 3
NEW_TOKENS = 32
HIDDEN = 4  # prompts that are compared layer by layer


def lengths(count: int, rng: random.Random) -> list:
    """The edges, some long ones, and others at random."""
    fixed = [*EDGES, *[LONG - 7 * i for i in range(LONG_PROMPTS)]][:count]
    return fixed + [rng.randint(1, LONGEST) for _ in range(count - len(fixed))]


def lines(count: int, draw) -> list:
    """draw(length) gives the ids of a prompt; those of the middle lengths are compared layer by layer."""
    rng = random.Random(1)
    out = [{"id": f"{i}", "prompt": draw(n, rng), "max_tokens": NEW_TOKENS, "hidden": False}
           for i, n in enumerate(lengths(count, rng))]
    middle = [line for line in out if 100 <= len(line["prompt"]) <= LONGEST]
    for line in (middle or out)[:HIDDEN]:
        line["hidden"] = True
    return out


def of_random_ids(vocab: int, count: int) -> list:
    return lines(count, lambda n, rng: [rng.randrange(vocab) for _ in range(n)])


def of_texts(model: Path, texts: list, count: int) -> list:
    """Pieces of the texts, as the model's own tokenizer splits them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    books = [tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids for text in texts]

    def draw(length: int, rng: random.Random) -> list:
        book = rng.choice([b for b in books if len(b) >= length])
        start = rng.randrange(len(book) - length + 1)
        return book[start:start + length]

    return lines(count, draw)
