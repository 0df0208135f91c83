"""What the teacher is asked, and how: prompts from word lists, behind examples that show the style."""
import hashlib
import random

import exemplars as E
import words as W
from questions import casual
from stories import ASK_ABOUT, ASK_WORDS, fix, random_words, shown

SYSTEM = {
    "story": "You tell very short stories for small children in simple words.",
    "fact": "You answer small children in one to three short, simple sentences.",
    "talk": "You are friendly and talk with a small child in short, simple sentences.",
    "task": "You answer small children in short, simple sentences.",
    "next": "You talk with a small child in short, simple sentences.",
}
TURN = "<|im_start|>{role}\n{text}<|im_end|>\n"
OPEN = "<|im_start|>assistant\n"
HELD_OUT = 40  # one question in so many is kept for evaluation

FACTS = [
    "What is {a}?", "What is {a} for?", "Tell me something about {p}.", "Why do people like {p}?", "What can you do with {a}?",
    "Where can I find {a}?", "What does {a} look like?", "Why are {p} important?", "What is special about {p}?", "Who uses {a}?",
    "What is the difference between {a} and {b}?", "Why do we {v}?", "When do people {v}?", "How do you learn to {v}?",
    "Why is it fun to {v}?", "What do you need to {v}?", "What happens when you {v}?", "Is it good to {v}?", "Why would {x} {v}?",
    "Can {x} {v}?", "What does it mean to be {j}?", "How can I be more {j}?", "What makes people {m}?", "What should I do when I am {m}?",
    "Why do I feel {m}?", "What do you find in {l}?", "What can I do in {l}?", "Who lives in {l}?", "What do {xs} do all day?",
    "Why are {xs} so {j}?"]
TALK = [
    "I like {p}.", "I want to {v}.", "I saw {x} in {l}.", "I like to {v} with my friend.", "My {who} is {m}.", "I went to {l} with my {who}.",
    "I want to have {x}.", "I dreamed of {x}.", "I am going to {v} today.", "I do not like {p}.", "My friend wants to {v}.",
    "I found {a} in {l}.", "I gave my {who} {a}.", "We will {v} tomorrow.", "I am {m} because I lost my {n}.", "My {who} can {v} very well.",
    "I feel {m} when I {v}.", "I would like to be {x}.", "I made {a} for my {who}.", "Yesterday I had to {v} all day."]
TASKS = [
    "Describe {a}.", "Describe {x}.", "Describe {l}.", "Write a short poem about {a}.", "Write a short poem about {x}.",
    "Write a sentence with the word {n}.", "Write a sentence with the word {j}.", "Write a sentence about {x} and {a}.",
    "Give me one tip: how can I {v} better?", "Tell me something interesting about {xs}.", "Say something nice to my {who}.",
    "What would {x} say if it could talk?", "Name three things in {l}.", "Name three things that are {j}.", "Tell me a fun fact about {xs}.",
    "Write a short letter to {x}.", "Explain {n} to a child.", "How can I be kind to my {who}?"]
FOLLOW = {
    "story": ["What happened next?", "Why?", "Make it end happily.", "Tell me more.", "What did they learn?", "Who was in the story?",
              "And then what did they do?", "Thank you, that was nice!", "I liked the end."],
    "fact": ["Why?", "Tell me more.", "Can you give me an example?", "Thank you!", "That is interesting.", "Really?", "I did not know that."],
    "talk": ["Yes, I do.", "It was fun.", "I don't know.", "My friend was there too.", "What about you?", "Thank you!", "Why?", "I think so.",
             "It was very nice.", "What should I do now?"],
    "task": ["Another one, please.", "Thank you!", "Make it shorter.", "Tell me more.", "That is nice."],
}
LISTS = dict(n=W.THINGS + W.NATURE, x=W.ANIMALS * 2 + W.PEOPLE + W.FANTASY, v=W.VERBS, j=W.ADJECTIVES, m=W.FEELINGS, l=W.PLACES,
             who="mother father sister brother friend teacher grandmother grandfather".split())


def held_out(question: str) -> bool:
    """Whether a question, however it is spelled, is kept out of training."""
    plain = "".join(c for c in question.lower() if c.isalnum())
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:4], "big") % HELD_OUT == 0


def fill(rng, template: str) -> str:
    pick = {k: rng.choice(v) for k, v in LISTS.items()}
    return fix(template.format(
        n=pick["n"], a=W.some(pick["n"]), b=W.some(rng.choice(LISTS["n"])), p=pick["n"] if pick["n"] in W.MASS | W.ONLY else W.plural(pick["n"]),
        x=W.article(pick["x"]), xs=W.plural(pick["x"]), v=pick["v"], j=pick["j"], m=pick["m"], l="the " + pick["l"], who=pick["who"]))


def question(rng, stories: float = 0.5):
    """(kind, question, words that the answer must use); `stories` is the share of wishes for one."""
    kind = rng.choices(["words", "about"], [38, 14])[0] if rng.random() < stories else rng.choices(["fact", "talk", "task"], [26, 12, 10])[0]
    if kind == "words":
        words = random_words(rng)
        return kind, rng.choice(ASK_WORDS).format(w=shown(rng, words)), words
    if kind == "about":
        hero = rng.choice(LISTS["x"])
        x = W.article((rng.choice(W.ADJECTIVES) + " " if rng.random() < 0.5 else "") + hero)
        more = rng.choice(["", "", " and " + W.article(rng.choice(W.THINGS)), " who likes to " + rng.choice(W.VERBS), " in the " + rng.choice(W.PLACES)])
        return kind, rng.choice(ASK_ABOUT).format(x=fix(x + more)), [hero]
    templates = {"fact": FACTS, "talk": TALK, "task": TASKS}[kind]
    return kind, casual(rng, fill(rng, rng.choice(templates))), []


def prefixes(count: int = 8, seed: int = 0) -> dict:
    """kind → texts that a conversation with the teacher begins with."""
    rng = random.Random(seed)
    pairs = {"story": [(rng.choice(ASK_WORDS[:8]).format(w=shown(rng, w)), s) for w, s in E.STORIES], "fact": E.FACTS, "talk": E.TALK, "task": E.TASKS}
    out = {}
    for kind, size in (("story", 3), ("fact", 5), ("talk", 6), ("task", 5)):
        out[kind] = []
        for _ in range(count):
            turns = rng.sample(pairs[kind], size)
            out[kind].append(TURN.format(role="system", text=SYSTEM[kind]) + "".join(map(exchange, turns)))
    out["next"] = []
    for _ in range(count):
        chats = rng.sample(E.FOLLOW_UPS, 3)
        out["next"].append(TURN.format(role="system", text=SYSTEM["next"]) + "".join(exchange(t) for chat in chats for t in chat))
    return out


def exchange(turn) -> str:
    return TURN.format(role="user", text=turn[0]) + TURN.format(role="assistant", text=turn[1])


def prompt(text: str, before=()) -> str:
    """What follows a prefix: earlier turns, the question, and the beginning of the answer."""
    return "".join(map(exchange, before)) + TURN.format(role="user", text=text) + OPEN


def style(kind: str) -> str:
    """Which examples go with a kind of question."""
    return "story" if kind in ("words", "about", "any") else kind if kind in ("fact", "talk", "task", "next") else "fact"
