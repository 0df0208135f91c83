"""Written stories: plots filled with characters, places and things, and questions about them."""
import re

import words as W
from plots import ENDINGS, MORALS, OPENINGS, PLOTS

AT = """in the forest|by the river|by the lake|near the sea|at the beach|on a mountain|on a hill|in a valley|in a village
|in a small town|in the city|on an island|on a farm|in a garden|in the park|near the school|in a little house|in a castle
|in a cave|in the desert|in the jungle|in a field|in a meadow|by a pond|in a barn|near a bridge|by the road|in a tower
|in a cottage|in a tent|on a ship|in a treehouse|in a big tree|near the bakery|behind the museum|in the old library
|next to the market|by the harbor|at the circus|near the station""".replace("\n", "").split("|")
COMMON_AT = ["in a village", "in the forest", "by the river", "on a farm", "in a garden", "in a little house", "near the sea", "in the park",
             "in a castle", "on a mountain", "in a small town", "in a field"]
COMMON_THINGS = "ball book kite hat doll toy box key drum balloon basket ring umbrella blanket flute bicycle puzzle lamp scarf map".split()
HEROES = W.ANIMALS * 3 + W.PEOPLE * 2 + W.FANTASY * 4
THINGS = [t for t in W.THINGS if t not in {
    "paper", "paint", "soup", "milk", "tea", "ice-cream", "butter", "jam", "popcorn", "bread", "cheese", "chocolate",
    "candy", "table", "bed", "door", "window", "train", "plane", "slide", "piano", "swing", "car", "truck", "boat"}]
COLORS = "red blue green yellow white black brown golden silver pink purple orange shiny small little big old new".split()
FOODS = [f for f in W.FOODS if f not in ("milk", "tea")] + ["nuts", "berries", "pears", "plums", "cherries", "jam", "toast", "mushrooms"]
COOKED = "soup|pancakes|cookies|pizza|pasta|bread|chocolate cake|apple pie|jam|rice".split("|")
PLAY = """run jump swim climb dance sing laugh play hide paint draw read write cook bake sleep dream walk dig plant catch
build explore fish whistle""".split()
COMMON_HEROES = "girl boy fox mouse rabbit bear bird cat dog dragon frog robot owl princess lion".split()
COMMON_ADJECTIVES = "little young brave kind small shy curious clever big happy friendly old lonely funny".split()
COMMON_FOODS = "cake bread cookies apples honey soup berries cheese pancakes carrots nuts".split()
SKILLS = """swim|fly|sing|dance|read|write|paint|cook|climb trees|ride a bicycle|play the flute|play the drum|jump high
|bake bread|draw|skate|sail a boat|whistle|tie a knot|count to ten""".replace("\n", "").split("|")
FEARS = """the dark|deep water|thunder|high places|big dogs|loud noises|spiders|the forest at night|strangers|the wind
|the cold|ghosts|the big bridge|monsters""".replace("\n", "").split("|")
WEATHER = "sunny warm cold rainy windy snowy bright foggy cloudy quiet beautiful".split()
ADJECTIVES = [a for a in W.ADJECTIVES if a not in {"empty", "full", "heavy", "light", "dry", "sour", "broken", "hard", "secret",
                                                 "new", "long", "dark", "hot", "orange", "sweet", "lost"}]

# Sentences that any noun or verb fits into.
NOUN_DETAILS = [
    "{He} liked to look at the {noun}.", "{He} often thought of the {noun}.", "There was a picture of {a_noun} on the wall.",
    "{He} knew a song about {a_noun}.", "\"I dreamed of {a_noun},\" said {hero}.", "{He} could see the {noun} from there.",
    "{He} had a picture of {a_noun}."]
VERB_DETAILS = [
    "{He} loved to {verb}.", "{He} could {verb} all day long.",
    "More than anything, {he} liked to {verb}.", "Sometimes {he} would {verb} for hours.", "Nobody could {verb} like {hero}."]
# The same, once both have met.
FRIEND_NOUN_DETAILS = ["{Friend} told a funny story about {a_noun}.", "They talked about the {noun}.", "{Friend} had seen {a_noun} before.",
                       "{Hero} showed {friend} {a_noun}.", "Together they looked at the {noun}."]
FRIEND_VERB_DETAILS = ["\"Let us {verb} together,\" said {friend}.", "Then they began to {verb}.", "\"Do you like to {verb}?\" asked {friend}.",
                       "They wanted to {verb} every day."]
ADJECTIVE_DETAILS = ["\"You are so {adjective},\" they said to {him}.", "Everything looked {adjective}.", "It was all very {adjective}.", "\"How {adjective} it is!\" said {hero}."]
MOOD_DETAILS = ["{Hero} felt {mood}.", "That day {hero} was {mood}.", "{He} was a little {mood}."]

QUESTIONS = {
    "name": (["What was the {noun} called?", "What was the name of the {noun}?", "What was {his} name?"],
             ["The {noun} was called {name}.", "{His} name was {name}."]),
    "where": (["Where did the {noun} live?", "Where was the {noun}?", "Where does the story happen?"],
              ["The {noun} was {at}.", "It happened {at}."]),
    "friend": (["Who was the friend of the {noun}?", "Who else was in the story?", "Who did the {noun} meet?"],
               ["It was {friend}.", "The {noun} met {friend}.", "{Friend} was in the story too."]),
    "thing": (["What did the {thing} look like?", "What color was the {thing}?"], ["The {thing} was {color}."]),
    "who": (["Who is the story about?", "Who was the hero of the story?", "Who was in the story?"], ["The story is about {a_noun}.", "It is about {a_noun} and {friend}."]),
}
NEXT = [
    "The next day, {hero} and {friend} met again. They went for a walk {at} and found some {food}. They sat down and ate it all. Then they made a plan for the next day.",
    "After that, {hero} went home and told everyone what had happened. They all wanted to meet {friend}. So {friend} came for tea, and they had a wonderful evening.",
    "Later, {friend} gave {hero} a {color} {thing}. {Hero} was very happy. They played with it until the sun went down.",
    "In the morning it was {weather}. {Hero} went out and called for {friend}. Together they had a new adventure {at}, but that is another story.",
    "{Hero} and {friend} became even better friends. When one of them was sad, the other one was there to help.",
    "They slept for a long time, because they were so tired. When they woke up, {friend} made some {food}. \"What shall we do today?\" asked {hero}.",
]
ASK_NEXT = ["What happened next?", "And then?", "And then what did they do?", "What happened after that?", "Please go on.", "Tell me more.", "How does it go on?"]
ASK_AGAIN = ["Tell me another one.", "Another story, please!", "Can you tell me one more story?", "One more, please.", "Tell me a different story."]
THANKS = ["Thank you!", "Thanks!", "That was nice.", "I liked that story.", "What a nice story!", "Great, thank you.", "Thank you, that was nice!", "I liked the end."]
ASK_MORAL = ["What did they learn?", "What can we learn from it?", "What is the moral of the story?", "Why?", "Why did they do that?"]
ASK_END = ["Make it end happily.", "Can you make it end happily?", "Give it a happy end.", "Does it end well?"]
HAPPY = ["In the end everything was good. {Hero} and {friend} were happy, and they laughed together until the sun went down.",
         "And so it ended well: {hero} was happy, {friend} was happy, and they ate {food} together.",
         "At last all was well. {Hero} hugged {friend}, and they lived happily ever after."]
WELCOME = ["You are welcome! I am glad that you liked it.", "You are welcome! Do you want to hear another one?",
           "I am happy that you liked the story.", "My pleasure! It was fun to tell it."]

ASK_WORDS = [
    "Write a short story with the words: {w}.", "Write a short story with these words: {w}.", "Tell me a story with the words {w}.",
    "Use these words in a story: {w}.", "Please write a story that uses the words {w}.", "Make up a story with {w}.",
    "Write a very short story. Use the words: {w}.", "Can you write a story with the words {w}?", "Story words: {w}.",
    "I would like a story with the words {w}, please.", "Write a little story for a child with: {w}.", "Words: {w}. Write a story.",
    "Tell me a short story. It should have the words {w}.", "Write a story using {w}.", "Create a short story with {w}."]
ASK_ABOUT = [
    "Tell me a story about {x}.", "Tell me a short story about {x}.", "Write a story about {x}.", "Please tell me a story about {x}.",
    "Can you tell me a story about {x}?", "I want to hear a story about {x}.", "Write a short story about {x}.",
    "Do you know a story about {x}?", "A story about {x}, please.", "Make up a story about {x}.", "Could you write a little story about {x}?",
    "Tell me about {x}, in a story.", "Tell a bedtime story about {x}.", "tell me a story about {x}", "story about {x}",
    "Write a very short story about {x}.", "Give me a short story about {x}.", "Let's hear a story about {x}."]
ASK_ANY = ["Tell me a story.", "Tell me a short story.", "Write a story.", "Can you tell me a story?", "I want to hear a story.",
           "Please tell me a bedtime story.", "Do you know a nice story?", "Write a short story for a child.", "Once upon a time",
           "Tell me something nice before I sleep.", "Make up a story for me.", "Write me a fairy tale."]


def likely(rng, common: list, rest: list):
    """An entry, the first of `common` most often: Zipf's law, as in what people tell."""
    if rng.random() < 0.15:
        return rng.choice(rest)
    return rng.choices(common, [1 / (i + 1.5) for i in range(len(common))])[0]


def fix(text: str) -> str:
    """a apple → an apple."""
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU]|hone|hour)(?!uni|one|use)", r"\1n ", text)


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


class Story:
    """One story. `slots` says what is in it, `text` is what is told. Every word of `asked` is used."""

    def __init__(self, rng, asked=()):
        self.rng, pick = rng, rng.choice
        cast = self.cast(list(asked))
        noun = cast.get("hero") or (likely(rng, COMMON_HEROES, HEROES) if rng.random() < 0.5 else pick(HEROES))
        friend_noun = cast.get("friend") or likely(rng, [h for h in COMMON_HEROES if h != noun], [h for h in HEROES if h != noun])
        is_she = lambda who: who in W.SHE or who not in W.HE and rng.random() < 0.5
        she, fshe = is_she(noun), is_she(friend_noun)
        names = W.GIRLS if she else W.BOYS
        name = likely(rng, names[:12], names)
        friend_name = pick([n for n in (W.GIRLS if fshe else W.BOYS) if n != name]) if rng.random() < 0.25 else None
        self.plot = rng.randrange(len(PLOTS))
        plot = PLOTS[self.plot]
        cooking = any("wanted to make {food}" in s for s in plot[0])
        self.slots = dict(
            noun=noun, name=name, named=rng.random() < 0.5, friend_noun=friend_noun, friend_name=friend_name,
            adjective=cast.get("adjective") or (likely(rng, COMMON_ADJECTIVES, ADJECTIVES) if rng.random() < 0.8 else ""), at=cast.get("at") or likely(rng, COMMON_AT, AT),
            verb=likely(rng, PLAY, PLAY), mood=likely(rng, W.FEELINGS, W.FEELINGS), thing=cast.get("thing") or likely(rng, COMMON_THINGS, THINGS),
            color=cast.get("color") or likely(rng, COLORS, COLORS),
            food=likely(rng, COOKED, COOKED) if cooking else likely(rng, COMMON_FOODS, FOODS), skill=likely(rng, SKILLS, SKILLS), fear=likely(rng, FEARS, FEARS), weather=likely(rng, WEATHER, WEATHER),
            he="she" if she else "he", him="her" if she else "him", his="her" if she else "his",
            himself="herself" if she else "himself", fhe="she" if fshe else "he", fhim="her" if fshe else "him",
            fhis="her" if fshe else "his", a_noun=W.article(noun), extra="")
        self.met = set()
        self.text = self.tell(plot, asked)

    def cast(self, asked: list) -> dict:
        """Asked words that are a part of their own; tell works in the others."""
        parts = {}
        for word in asked:
            at = [a for a in AT if a.split()[-1] == word]
            if word in HEROES and "friend" not in parts:
                parts["friend" if "hero" in parts else "hero"] = word
            elif word in THINGS and "thing" not in parts:
                parts["thing"] = word
            elif word in COLORS and "adjective" in parts and "color" not in parts:
                parts["color"] = word
            elif word in ADJECTIVES and "adjective" not in parts:
                parts["adjective"] = word
            elif at and "at" not in parts:
                parts["at"] = self.rng.choice(at)
        return parts

    def details(self):
        """Sentences that are not needed, before and after the two have met."""
        pick, chance = self.rng.choice, self.rng.random()
        before, after, slots = [], [], self.slots
        if chance < 0.35:
            slots["extra"] = pick(W.NATURE + W.THINGS)
        if chance < 0.25:
            before.append(self.with_noun(pick(NOUN_DETAILS), slots["extra"]))
        elif chance < 0.35:
            after.append(self.with_noun(pick(FRIEND_NOUN_DETAILS), slots["extra"]))
        elif chance < 0.5:
            before.append(pick(VERB_DETAILS))
        elif chance < 0.6:
            before.append(pick(MOOD_DETAILS))
        elif chance < 0.75:
            after.append(pick(FRIEND_VERB_DETAILS))
        return before, after

    @staticmethod
    def with_noun(template: str, noun: str) -> str:
        return template.replace("{noun}", noun).replace("{a_noun}", W.some(noun))

    def tell(self, plot, asked) -> str:
        pick, random = self.rng.choice, self.rng.random
        opening, body = pick(OPENINGS), [pick(step) for step in plot]
        before, after = self.details()
        ending = [pick(ENDINGS)] if random() < 0.7 else []
        draft = re.findall(r"[\w'-]+", " ".join([opening] + before + body + after + ending).format_map(
            {**self.slots, **{k: self.slots["adjective"] + " " + self.slots["noun"] for k in ("hero", "a_hero", "Hero", "A_hero")},
             **{k: self.slots["friend_noun"] for k in ("friend", "a_friend", "Friend", "A_friend")},
             **{capital(k): v for k, v in self.slots.items()}}).lower())
        for word in asked:
            if word in draft:
                continue
            late = random() < 0.5
            place = after if late else before
            if word in W.FEELINGS:
                place, late = before, False
                place.append(pick(MOOD_DETAILS).replace("{mood}", word))
            elif word in W.VERBS:
                place.append(pick(FRIEND_VERB_DETAILS if late else VERB_DETAILS).replace("{verb}", word))
            elif word in W.ADJECTIVES:
                place.append(pick(ADJECTIVE_DETAILS).replace("{adjective}", word))
            else:
                place.append(self.with_noun(pick(FRIEND_NOUN_DETAILS if late else NOUN_DETAILS), word))
        sentences = [self.fill(t) for t in [opening] + before + body[:-1] + after + body[-1:] + ending]
        cut = self.rng.randrange(2, len(sentences) - 1) if random() < 0.15 else len(sentences)
        return " ".join(sentences[:cut]) + ("\n\n" + " ".join(sentences[cut:]) if cut < len(sentences) else "")

    def fill(self, template: str) -> str:
        return fix(re.sub(r"\{(\w+)\}", self.slot, template))

    def slot(self, match) -> str:
        key = match[1]
        value = self.value(key.lower())
        return capital(value) if key[0].isupper() else value

    def value(self, key: str) -> str:
        s = self.slots
        if key in ("hero", "a_hero"):
            if "hero" not in self.met:
                self.met.add("hero")
                phrase = "a " + (s["adjective"] + " " if s["adjective"] else "") + s["noun"]
                return fix(phrase + (self.rng.choice([" named ", " called "]) + s["name"] if s["named"] else ""))
            return s["name"] if s["named"] and self.rng.random() < 0.7 else "the " + s["noun"]
        if key in ("friend", "a_friend"):
            if "friend" not in self.met:
                self.met.add("friend")
                return fix("a " + s["friend_noun"] + (" named " + s["friend_name"] if s["friend_name"] else ""))
            return s["friend_name"] if s["friend_name"] and self.rng.random() < 0.7 else "the " + s["friend_noun"]
        return s[key]

    def words(self) -> list:
        """Words of the story that may be asked for."""
        s = self.slots
        candidates = [s["noun"], s["friend_noun"], s["thing"], s["color"], s["adjective"], s["at"].split()[-1],
                      s["food"].split()[-1], s["verb"], s["mood"], s.get("extra", ""), s["weather"], s["skill"].split()[-1]]
        said = set(re.findall(r"[\w'-]+", self.text.lower()))
        return sorted({w for w in candidates if w and w in said})


def shown(rng, words: list) -> str:
    """A list of words as people write it."""
    style = rng.random()
    if style < 0.55 or len(words) == 1:
        return ", ".join(words)
    if style < 0.8:
        return ", ".join(words[:-1]) + " and " + words[-1]
    if style < 0.9:
        return ", ".join(f'"{w}"' for w in words)
    return " ".join(words) if style < 0.95 else ", ".join(w.upper() for w in words)


def random_words(rng) -> list:
    """One to four words that need not go together."""
    lists = [(W.ANIMALS + W.PEOPLE + W.FANTASY, 4), (W.THINGS, 3), (W.NATURE, 3), (W.PLACES, 2), (W.ADJECTIVES, 3), (W.VERBS, 3), (W.FEELINGS, 1)]
    chosen = rng.choices([l for l, _ in lists], [w for _, w in lists], k=rng.choice([1, 2, 2, 3, 3, 3, 4]))
    return list(dict.fromkeys(rng.choice(l) for l in chosen))


def about(rng):
    """A phrase for "a story about …", and the words that the story must have."""
    hero, extra = rng.choice(HEROES), rng.random()
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.5 else ""
    x, asked = W.article((adjective + " " if adjective else "") + hero), [hero] + [adjective] * bool(adjective)
    if extra < 0.15:
        asked.append(rng.choice(W.VERBS))
        x += rng.choice([" who likes to ", " who wants to ", " who loves to ", " that can "]) + asked[-1]
    elif extra < 0.3:
        asked.append(rng.choice(W.PLACES))
        x += rng.choice([" in the ", " at the ", " near the "]) + asked[-1]
    elif extra < 0.5:
        asked.append(rng.choice(W.THINGS + W.NATURE))
        x += " and " + W.some(asked[-1])
    elif extra < 0.65:
        asked.append(rng.choice(HEROES))
        x += " and " + W.article(asked[-1])
    return fix(x), list(dict.fromkeys(asked))


def ask(rng):
    """(kind, question, asked words): a wish for a story."""
    style = rng.random()
    if style < 0.55:
        words = random_words(rng)
        if rng.random() < 0.5:  # words that go together
            words = Story(rng).words()
            words = rng.sample(words, min(len(words), rng.choice([1, 2, 2, 3, 3, 3, 4])))
        return "words", rng.choice(ASK_WORDS).format(w=shown(rng, words)), words
    if style < 0.95:
        x, words = about(rng)
        return "about", rng.choice(ASK_ABOUT).format(x=x), words
    return "any", rng.choice(ASK_ANY), []


def follow_up(rng, story):
    """(question, answer, story) that goes on from a story."""
    style = rng.random()
    if style < 0.5:
        s = story.slots
        known = ["where", "who"] + ["name"] * s["named"] + ["friend"] * ("friend" in story.met)
        if f"{s['color']} {s['thing']}" in story.text and s["color"] not in ("old", "new"):
            known.append("thing")
        if s["at"] not in story.text:
            known.remove("where")
        questions, answers = QUESTIONS[rng.choice(known)]
        return story.fill(rng.choice(questions)), story.fill(rng.choice(answers)), story
    if style < 0.62 and "friend" in story.met:
        if rng.random() < 0.6:
            return rng.choice(ASK_MORAL), story.fill(rng.choice(MORALS[story.plot])), story
        return rng.choice(ASK_END), story.fill(rng.choice(HAPPY)), story
    if style < 0.75:
        return rng.choice(ASK_NEXT), story.fill(rng.choice(NEXT)), story
    if style < 0.87:
        if rng.random() < 0.5:
            again = Story(rng)
            return rng.choice(ASK_AGAIN), again.text, again
        x, words = about(rng)
        again = Story(rng, words)
        return rng.choice(["Now one about {x}.", "And one about {x}?", "Tell me one about {x} now."]).format(x=x), again.text, again
    return rng.choice(THANKS), rng.choice(WELCOME), story
