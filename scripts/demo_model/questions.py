"""Conversations about the world and small talk, from the written facts."""
import everyday
import facts as F
import words as W
from general import FAVORITES, TALK, WORLD
from stories import capital, fix


def table(lines):
    return [[cell.strip() for cell in line.split("|")] for line in lines if line.strip()]


ANIMALS, JOBS, THINGS, FOODS, PLACES = map(table, (F.ANIMALS, F.JOBS, F.THINGS, F.FOODS, F.PLACES))
WORLD_LINES = [([q.strip() for q in line[0].split("/")], line[1:]) for line in table(WORLD.splitlines())]
TALK_LINES = [([q.strip() for q in line[0].split("/")], line[1:]) for line in table(TALK.splitlines())]
# The animals that many things are compared by, small to big.
SIZES = "ant bee mouse frog squirrel hedgehog rabbit cat fox dog goat sheep pig wolf lion tiger bear cow horse camel hippo giraffe elephant whale".split()


def animal(rng):
    name, what, home, food, look, does, more = rng.choice(ANIMALS)
    x = {"x": name, "xs": W.plural(name), "a": W.article(name)}
    pick = lambda *templates: fix(rng.choice(templates).format(**x))
    many, one = capital(x["xs"]), capital(x["a"])
    live, eat = f"{many} live {home}.", f"{many} eat {food}."
    kind = rng.randrange(8)
    if kind < 2:
        return (pick("What is {a}?", "Tell me about {xs}.", "What do you know about {xs}?", "Tell me something about {xs}.",
                     "What are {xs}?", "Can you tell me about {xs}?", "What kind of animal is {a}?"),
                fix(f"{one} is {what}. " + rng.choice([f"It has {look}. {more}", f"{live} {more}", f"{eat} {more}", f"It has {look}. {eat}", f"{live} {eat}"])))
    if kind == 2:
        return pick("Where do {xs} live?", "Where does {a} live?", "Where can I find {a}?", "Where do you find {xs}?"), live + rng.choice(["", " " + more])
    if kind == 3:
        return pick("What do {xs} eat?", "What does {a} eat?", "What is the food of {xs}?", "What do {xs} like to eat?"), eat + rng.choice(["", " " + live])
    if kind == 4:
        return (pick("Describe {a}.", "What does {a} look like?", "How does {a} look?", "Describe {a} in simple words."),
                fix(f"{one} is {what}. It has {look}."))
    if kind == 5:
        if does in ("bark", "meow", "squeak", "growl", "quack", "croak", "hoot", "roar", "neigh", "moo", "oink", "baa", "bleat", "cluck",
                    "crow", "howl", "buzz", "hiss", "honk", "caw", "bray", "trumpet", "chatter", "sing"):
            return pick("What sound does {a} make?", "What does {a} say?", "What noise do {xs} make?"), f"{many} {does}."
        return pick("What can {a} do?", "What do {xs} do?"), fix(f"{one} can {does}. {more}")
    if kind == 6:
        return pick("Tell me something interesting about {xs}.", "Tell me a fact about {xs}.", "Do you know something about {xs}?"), more
    first, second = rng.sample(range(len(SIZES)), 2)
    a, b = W.article(SIZES[first]), W.article(SIZES[second])
    bigger, smaller = (a, b) if first > second else (b, a)
    if rng.random() < 0.5:
        return rng.choice([f"Which is bigger, {a} or {b}?", f"What is bigger, {a} or {b}?"]), f"{capital(bigger)} is bigger than {smaller}."
    return rng.choice([f"Is {a} bigger than {b}?", f"Is {a} larger than {b}?"]), \
        (f"Yes, {a} is bigger than {b}." if first > second else f"No, {a} is smaller than {b}.")


def job(rng):
    name, does, where, tool = rng.choice(JOBS)
    a = W.article(name)
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice([f"What does {a} do?", f"What is {a}?", f"What is the job of {a}?", f"Who is {a}?"]), \
            f"{capital(a)} {does}. {capital(a)} works {where}."
    if kind == 1:
        return rng.choice([f"Where does {a} work?", f"Where can you find {a}?"]), f"{capital(a)} works {where}."
    return rng.choice([f"What does {a} need?", f"What does {a} use?"]), f"{capital(a)} needs {tool}. {capital(a)} {does}."


def thing(rng):
    name, what, use, made = rng.choice(THINGS)
    a = W.article(name)
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice([f"What is {a}?", f"Tell me about {a}.", f"Describe {a}.", f"Explain what {a} is."]), \
            fix(f"{capital(a)} is {what}. You use it {use}.")
    if kind == 1:
        return rng.choice([f"What is {a} for?", f"What can you do with {a}?", f"What do you use {a} for?", f"Why do we need {a}?"]), f"You use {a} {use}."
    return rng.choice([f"What is {a} made of?", f"What are {W.plural(name)} made of?"]), f"{capital(a)} is made of {made}."


def food(rng):
    name, what, color, taste, eat = rng.choice(FOODS)
    a = W.article(name)
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice([f"What is {a}?", f"Tell me about {a}.", f"Describe {a}."]), fix(f"{capital(a)} is {what}. It tastes {taste}. {eat}")
    if kind == 1:
        return rng.choice([f"What color is {a}?", f"Which color does {a} have?"]), f"{capital(a)} is {color}."
    if kind == 2:
        return rng.choice([f"How does {a} taste?", f"What does {a} taste like?"]), f"{capital(a)} tastes {taste}."
    return rng.choice([f"How do you eat {a}?", f"What can I do with {a}?"]), eat


def place(rng):
    name, what, do = rng.choice(PLACES)
    a = W.article(name)
    if rng.random() < 0.5:
        return rng.choice([f"What is {a}?", f"Describe {a}.", f"Tell me about {a}."]), fix(f"{capital(a)} is {what}. You can {do} there.")
    return rng.choice([f"What can you do at the {name}?", f"What can I do at the {name}?", f"What do people do at the {name}?"]), f"You can {do}."


def favorite(rng):
    asks, answers = rng.choice(FAVORITES)
    beast = rng.choice(W.ANIMALS)
    x = dict(color=rng.choice("red blue green yellow purple orange pink black white".split()), animal=beast, animals=W.plural(beast),
             food=rng.choice(W.FOODS), thing=rng.choice(W.THINGS), name=rng.choice(W.GIRLS + W.BOYS), verb=rng.choice(W.VERBS), mood=rng.choice(W.FEELINGS))
    x |= {capital(k): capital(v) for k, v in x.items()}
    return fix(rng.choice(asks).format(**x)), fix(rng.choice(answers).format(**x))


def line(rng, lines):
    asks, answers = rng.choice(lines)
    return rng.choice(asks), rng.choice(answers)


POEMS = [
    "The {n} is {j}, the {n} is bright,\nI see it in the morning light.\nI see it when the day is done,\nThe {n} and I have lots of fun.",
    "I saw {a} one sunny day,\nI asked it if it wants to play.\nIt looked at me and said, \"Oh yes!\"\nThat was the start of happiness.",
    "Little {n}, so {j} and small,\nI like you best of one and all.\nI think of you when I am blue,\nAnd then I smile because of you.",
    "There once was {a} who could sing,\nIt sang to the queen and the king.\nThey danced the whole night\nIn the pale moonlight,\nAnd what a nice song it did bring.",
    "{A} sat in the morning sun,\nIts {j} day had just begun.\nIt looked around, it looked at me,\nAs happy as a {n} can be."]
SENTENCES = ["I saw {a} on my way to school.", "My sister has {a} that she likes very much.", "The little boy drew a picture of {a}.",
             "There was {a} in front of our house.", "We talked about the {n} all day."]
ADJECTIVE_SENTENCES = ["The {j} dog ran across the garden.", "It was a {j} morning, and the birds were singing.", "My friend has a {j} cat.", "What a {j} day it was!"]
VERB_SENTENCES = ["I like to {v} with my friends.", "Every morning we {v} in the park.", "My brother wants to {v} today.", "It is fun to {v} together."]
KIND = ["I am so glad that you are my {who}. Thank you for everything!", "You are a wonderful {who}. I love to be with you.",
        "Dear {who}, you are so kind and patient. You make every day better."]


def task(rng):
    noun, who = rng.choice(W.ANIMALS + W.THINGS + W.NATURE + W.PEOPLE), rng.choice("mother father sister brother friend teacher grandmother grandfather".split())
    x = dict(n=noun, a=W.some(noun), A=capital(W.some(noun)), j=rng.choice(W.ADJECTIVES), v=rng.choice(W.VERBS), who=who)
    asks, answers = rng.choice([
        (["Write a short poem about {a}.", "Write a poem about {a}.", "Can you write a poem about {a}?", "A poem about {a}, please."], POEMS),
        (["Write a sentence with the word {n}.", "Use the word {n} in a sentence.", "Make a sentence with {n}."], SENTENCES),
        (["Write a sentence with the word {j}.", "Use the word {j} in a sentence.", "Make a sentence with {j}."], ADJECTIVE_SENTENCES),
        (["Write a sentence with the word {v}.", "Use the word {v} in a sentence.", "Make a sentence with {v}."], VERB_SENTENCES),
        (["Say something nice to my {who}.", "What can I say to my {who}?", "Write something nice for my {who}."], KIND)])
    return fix(rng.choice(asks).format(**x)), fix(rng.choice(answers).format(**x))


def casual(rng, question: str) -> str:
    """The way people type."""
    style = rng.random()
    if style < 0.06:
        return question.lower()
    if style < 0.1:
        return question.rstrip("?!.")
    if style < 0.13:
        return question.lower().rstrip("?!.")
    if style < 0.16:
        return rng.choice(["Please tell me: ", "I have a question. ", "Hey, ", "Can you tell me? "]) + question
    return question


def more_about(rng, name):
    """A further turn about an animal."""
    _, what, home, food, look, does, more = next(row for row in ANIMALS if row[0] == name)
    many, one = capital(W.plural(name)), capital(W.article(name))
    return rng.choice([
        (rng.choice(["Where do they live?", "And where do they live?", "Where does it live?"]), f"{many} live {home}."),
        (rng.choice(["What do they eat?", "And what do they eat?", "What does it eat?"]), f"{many} eat {food}."),
        (rng.choice(["What do they look like?", "What does it look like?", "How does it look?"]), fix(f"{one} has {look}.")),
        (rng.choice(["Tell me more.", "What else?", "More, please.", "Anything else?"]), more),
        (rng.choice(["Thank you!", "Thanks!", "I did not know that.", "That is interesting."]),
         rng.choice([f"You are welcome! {many} are wonderful animals.", "You are welcome! Do you want to know more?", "I am glad that I could help."])),
        (rng.choice(["Do you like them?", "Do you like it?"]), f"Yes, I think that {W.plural(name)} are wonderful.")])


def exchange(rng):
    """(kind, question, answer)."""
    kind, turns = conversation(rng)
    return kind, *turns[0]


def conversation(rng):
    """(kind, turns)."""
    if rng.random() < 0.4:
        kind, ((question, answer), *rest) = everyday.conversation(rng)
        return kind, [(casual(rng, question), answer), *rest]
    kind, make = rng.choices(
        [("fact", animal), ("fact", job), ("fact", thing), ("fact", food), ("fact", place), ("world", lambda r: line(r, WORLD_LINES)),
         ("talk", lambda r: line(r, TALK_LINES)), ("talk", favorite), ("task", task)], [30, 8, 12, 5, 8, 20, 22, 12, 8])[0]
    question, answer = make(rng)
    turns = [(casual(rng, question), answer)]
    if make is animal:
        name = next((row[0] for row in ANIMALS if answer.lower().startswith((W.article(row[0]) + " ", W.plural(row[0]) + " "))), None)
        while name and rng.random() < 0.4 and len(turns) < 4:
            turns.append(more_about(rng, name))
    return kind, turns
