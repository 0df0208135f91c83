"""Conversations about everyday words: what the lists of prompts.py ask, answered from the lexicon and the facts.

Each maker returns (question, answer, something more to say or "").
"""
import facts as F
import lexicon as L
import words as W
from stories import capital, fix

ANIMALS, JOBS, THINGS = ({row[0]: row[1:] for row in (line.split("|") for line in lines)} for lines in (F.ANIMALS, F.JOBS, F.THINGS))
PLACES = {row[0]: row[1:] for row in (line.split("|") for line in F.PLACES)}
# What one can do in the places that have no line there.
DO = {row[0]: row[1] for row in (line.split(": ") for line in """
hill: run down, fly a kite or look far around
valley: walk along the river and pick flowers
town: go to shops and meet friends
house: play, cook, read and sleep
field: run, fly a kite and look for mice
meadow: pick flowers and watch butterflies
pond: watch frogs and feed the ducks
barn: play in the hay and see the animals
attic: look into old boxes and find old toys
street: walk, ride a bicycle and meet neighbors
bridge: stand and look at the water
road: walk or ride a bicycle, but look out for cars
tower: climb up and look far over the land
station: wait for a train and watch people
train: sit, look out of the window and read a book
bus: sit, look out of the window and talk with a friend
boat: row, fish and look at the water
ship: look at the sea and watch the sailors
treehouse: play, read and hide
nest: see eggs or chicks, but do not touch them
tent: sleep, tell stories and play with a lamp
cottage: sit by the fire and read
cabin: sleep, cook and sit by the fire
""".strip().splitlines())}
WHO = "mother father sister brother friend teacher grandmother grandfather".split()
SWIMMERS = set("fish duck frog whale dolphin shark crab octopus seal penguin swan goose beaver otter turtle dog bear tiger hippo starfish jellyfish crocodile".split())
FLYERS = set("""bird duck owl bee butterfly ladybug swan goose parrot crow eagle bat dragonfly firefly seagull robin pigeon fairy dragon
turkey peacock rooster beetle ghost""".split())
CLIMBERS = set("cat monkey bear squirrel goat koala panda ant spider lizard snail raccoon mouse beetle".split())
EVERYONE = set("eat drink sleep dream wake look find hide watch wait follow play grow listen".split())
RUNNERS = set("run jump walk chase dig catch carry push pull".split())
LEGLESS = set("fish whale dolphin shark snake worm snail starfish jellyfish seal octopus".split())


def can(beast: str, verb: str) -> bool:
    """Whether an animal can do it."""
    if verb in ("swim", "fly", "climb"):
        return beast in {"swim": SWIMMERS, "fly": FLYERS, "climb": CLIMBERS}[verb]
    return verb in EVERYONE or verb in RUNNERS and beast not in LEGLESS or verb == "sing" and beast in ("bird", "robin", "whale", "cricket")


def some(noun: str) -> str:
    return W.some(noun)


def many(noun: str) -> str:
    return noun if noun in W.MASS | W.ONLY else W.plural(noun)


def verb(rng):
    v = rng.choice(list(L.VERBS))
    need, why, happens, when = L.VERBS[v]
    more = rng.choice([f"People {v} {when}.", f"When you {v}, {happens}.", f"We {v} {why}."])
    return *rng.choice([
        (f"Why do we {v}?", f"We {v} {why}."), (f"Why do people {v}?", f"People {v} {why}."),
        (f"When do people {v}?", f"People {v} {when}."),
        (f"How do you learn to {v}?", rng.choice([f"Start slowly and practice a little every day. You need {need}.",
                                                  "Ask somebody who can do it well, and practice every day.",
                                                  f"You learn it step by step. For that you need {need}."])),
        (f"Why is it fun to {v}?", f"When you {v}, {happens}. Many people like that."),
        (f"What do you need to {v}?", f"You need {need}."),
        (f"What happens when you {v}?", f"When you {v}, {happens}."),
        (f"Is it good to {v}?", (f"It is better not to {v} things. Be careful." if v == "break" else f"Yes, it can be good to {v}. People {v} {why}.")),
        (f"Give me one tip: how can I {v} better?", rng.choice([f"Practice a little every day. All you need is {need}.",
                                                                f"Take your time, and do not give up. You will {v} better every day.",
                                                                f"Watch somebody who can {v} very well, and then try it."])),
        (f"I want to {v}.", rng.choice([f"That is a good idea! You need {need}.", f"How nice! When you {v}, {happens}.", f"That sounds good. Where do you want to {v}?"])),
        (f"My friend wants to {v}.", rng.choice(["Do you want to do it together?", f"How nice! Maybe you can {v} together.", "That sounds like fun for both of you!"])),
        (f"I am going to {v} today.", rng.choice(["That sounds like a good plan! Who will be with you?", f"How nice! I hope that you have a good time.", f"Good luck! You need {need}."])),
        (f"We will {v} tomorrow.", rng.choice(["That sounds nice! Who will be there?", "How nice! Are you excited?", f"Good! Then you need {need}."])),
        (f"Yesterday I had to {v} all day.", rng.choice(["All day? You must be tired. Did you rest a little?", "That is a long time! How do you feel today?"])),
        (f"I like to {v} with my friend.", rng.choice([f"It is nice to do things together. Where do you {v}?", "That sounds like fun! What is your friend called?"])),
    ]), more


def beast_and_verb(rng):
    v = rng.choice(list(L.VERBS))
    who = rng.choice(W.ANIMALS * 2 + W.PEOPLE + W.FANTASY)
    a, need, why = W.article(who), L.VERBS[v][0], L.VERBS[v][1]
    if who in W.FANTASY:
        answer, more = f"In stories, {a} can do almost everything. So yes, it can {v} there.", f"{capital(W.plural(who))} live only in stories."
    elif who in W.PEOPLE:
        answer = f"Not alone. People need a plane or a balloon to fly." if v == "fly" else f"Yes, {a} can {v}. People {v} {why}."
        more = "" if v == "fly" else f"For that, one needs {need}."
    elif can(who, v):
        answer, more = rng.choice([f"Yes, {a} can {v}.", f"Yes, {W.plural(who)} can {v} very well."]), f"Many animals can {v}."
    else:
        answer, more = rng.choice([f"No, {a} cannot {v}.", f"No, {W.plural(who)} cannot {v}. In a story they can."]), "But animals can do many things that people cannot do."
    if rng.random() < 0.6:
        return f"Can {a} {v}?", answer, more
    if v in ("break", "forget"):
        return f"Why would {a} {v}?", f"Maybe {a} was not careful.", more
    return f"Why would {a} {v}?", f"Maybe {a} would {v} {why}.", more


def adjective(rng):
    j = rng.choice(list(L.ADJECTIVES) + list(L.COLORS))
    xs = W.plural(rng.choice(W.ANIMALS))
    if j in L.COLORS:
        things = L.COLORS[j]
        return *rng.choice([
            (f"What does it mean to be {j}?", f"{capital(j)} is a color. {capital(things)} have it." if " and " in things else f"{capital(j)} is a color."),
            (f"How can I be more {j}?", f"{capital(j)} is a color. You can wear {j} clothes."),
            (f"Name three things that are {j}.", f"Three {j} things are {things}."),
            (f"Why are {xs} so {j}?", f"Not all {xs} are {j}. Animals have colors that help them to hide or to find friends."),
            (f"Write a sentence with the word {j}.", f"The girl has a {j} ball.")]), f"Three {j} things are {things}."
    meaning, advice, things = L.ADJECTIVES[j]
    return *rng.choice([
        (f"What does it mean to be {j}?", f"To be {j} means that {meaning}."),
        (f"How can I be more {j}?", advice),
        (f"Name three things that are {j}.", f"Three things that are {j} are {things}."),
        (f"Why are {xs} so {j}?", rng.choice([f"Not all {xs} are {j}. To be {j} means that {meaning}.", f"Some {xs} are {j}, and some are not. Each one is a little different."])),
    ]), rng.choice([f"Three things that are {j} are {things}.", f"To be {j} means that {meaning}."])


def feeling(rng):
    m = rng.choice(list(L.FEELINGS))
    causes, advice = L.FEELINGS[m]
    who, v, n = rng.choice(WHO), rng.choice(list(L.VERBS)), rng.choice(W.THINGS)
    good = m in ("happy", "proud", "excited", "calm")
    sorry = "I am glad to hear that!" if good else rng.choice(["I am sorry to hear that.", "Oh, I am sorry."])
    return *rng.choice([
        (f"What makes people {m}?", f"Many things can make people {m}: {causes}."),
        (f"What should I do when I am {m}?", advice),
        (f"Why do I feel {m}?", f"Often it comes from {causes}. {advice}"),
        (f"My {who} is {m}.", f"{sorry} " + (f"What made your {who} {m}?" if good else f"Maybe you can help. Ask your {who} what happened.")),
        (f"I feel {m} when I {v}.", f"{sorry} " + ("Then you should do it often." if good else "Do you want to tell me why?")),
        (f"I am {m} because I lost my {n}.", rng.choice([f"Oh no! Where did you see your {n} last?", f"I am sorry about your {n}. Let us think: where were you with it?"])),
    ]), "" if good else advice


def place(rng):
    name = rng.choice(list(L.PLACES))
    things, lives = L.PLACES[name]
    what, do = PLACES.get(name, ("", DO.get(name, "look around and meet people")))
    who, x = rng.choice(WHO), W.article(rng.choice(W.ANIMALS + W.PEOPLE))
    lives = lives + ("." if lives.startswith("Nobody") or " live" in lives or " stay" in lives or " play" in lives else f" live in the {name}.")
    return *rng.choice([
        (f"What do you find in the {name}?", f"In the {name} you find {things}."), (f"What can I do in the {name}?", f"You can {do}."),
        (f"Who lives in the {name}?", lives), (f"Name three things in the {name}.", f"Three things in the {name} are {things}."),
        (f"Describe the {name}.", (f"{capital(W.article(name))} is {what}. " if what else "") + f"There you see {things}."),
        (f"I went to the {name} with my {who}.", rng.choice([f"That sounds nice! What did you see in the {name}?", f"How nice! Did you see {things}?"])),
        (f"I saw {x} in the {name}.", rng.choice([f"How exciting! What did {'the' + x[x.index(' '):]} do?", f"Really? In the {name}? Tell me more!"])),
        (f"I found {some(rng.choice(W.THINGS))} in the {name}.", rng.choice(["What a surprise! What will you do with it?", "How exciting! Who could have lost it?"])),
    ]), rng.choice([f"In the {name} you find {things}.", lives])


def object_(rng):
    n = rng.choice(list(L.NATURE) + list(THINGS))
    a, ns, who = some(n), many(n), rng.choice(WHO)
    if n in L.NATURE:
        what, look, where, good = L.NATURE[n]
        looks, use, find = f"It is {look}." if not look.startswith(("like", "a ")) else f"It looks {look}.", good, f"You find it {where}."
        if look.startswith("like nothing"):
            looks = "You cannot see it" + look[len("like nothing"):].replace(", but you can", ", but you can") + "."
    else:
        what, used, made = THINGS[n]
        looks, use, find = f"It is made of {made}.", f"People use {a} {used}.", "You find it in many houses and in a shop."
    other, beasts = rng.choice([k for k in L.NATURE if k != n]), rng.sample(list(ANIMALS), 2)
    is_ = f"{capital(a)} is {what}."
    uses = use if ns == n or use.startswith("People") else f"{is_} {use}"  # an answer to a question in the plural
    return *rng.choice([
        (f"What is {a}?", f"{is_} {use}"), (f"What is {a} for?", use), (f"Tell me something about {ns}.", f"{is_} {rng.choice([looks, use, find])}"),
        (f"Why do people like {ns}?", uses), (f"What can you do with {a}?", use), (f"Where can I find {a}?", find),
        (f"What does {a} look like?", f"{is_} {looks}"), (f"Why are {ns} important?", uses), (f"What is special about {ns}?", f"{is_} {use}"),
        (f"Who uses {a}?", rng.choice([f"Almost everyone. {use}", f"Children and grown-ups. {use}"])),
        (f"What is the difference between {a} and {some(other)}?", f"{is_} {capital(some(other))} is {L.NATURE[other][0]}."),
        (f"What is the difference between {W.article(beasts[0])} and {W.article(beasts[1])}?",
         " ".join(f"{capital(W.article(b))} is {ANIMALS[b][0]}." for b in beasts)),
        (f"Describe {a}.", f"{is_} {looks}"), (f"Explain {n} to a child.", f"{is_} {looks} {use}"),
        (f"I like {ns}.", rng.choice([f"They are nice! What do you like about {ns}?" if ns != n else f"It is nice! What do you like about {ns}?", f"I understand that. {uses}"])),
        (f"I do not like {ns}.", rng.choice(["That is all right. What do you like?", "Why not? Everyone likes different things."])),
        (f"I gave my {who} {a}.", f"That was kind of you! Was your {who} happy?"), (f"I made {a} for my {who}.", f"How nice! I am sure that your {who} will love it."),
    ]), rng.choice([looks, use, find])


def creature(rng):
    n = rng.choice(W.ANIMALS * 2 + W.PEOPLE + W.FANTASY)
    a, xs, thing = W.article(n), W.plural(n), some(rng.choice(W.THINGS))
    if n in ANIMALS:
        what, home, food, look, _, fact = ANIMALS[n]
        is_, fact, day = f"{capital(a)} is {what}. It has {look}.", fact, f"{capital(xs)} look for food and rest. They eat {food}."
        wish = rng.choice([f"Please give me {food}.", f"I live {home}, and I like it there."])
    elif n in JOBS:
        does, where, tool = JOBS[n]
        is_, fact, day = f"{capital(a)} {does}.", f"{capital(a)} works {where} and needs {tool}.", f"{capital(xs)} work {where}. They need {tool}."
        wish = f"I work {where}, and I like it."
    elif n in W.FANTASY:
        is_, fact, day, wish = f"{capital(a)} lives only in stories.", f"{capital(xs)} live only in stories, and there they can do wonderful things.", \
            "They live in stories and have adventures there.", "Please tell a story about me!"
    elif n in W.ANIMALS:
        is_, fact, day, wish = f"{capital(a)} is an animal.", f"{capital(xs)} are animals, and each one is a little different.", \
            f"{capital(xs)} look for food, rest and take care of their young.", "I am hungry. Do you have something for me?"
    else:
        is_, fact, day, wish = f"{capital(a)} is a person.", f"{capital(xs)} are people with their own dreams.", "They work, eat, talk with others and sleep at night.", "How nice to see you! How are you?"
    letter = rng.choice(["how are you? I am fine. Yesterday I thought of you. Please come and visit me soon.",
                         "I hope that you are well. I would like to see you again. We could play and eat some cake.",
                         "thank you for being my friend. I like you very much. Let us meet in the park."])
    return *rng.choice([
        (f"Describe {a}.", is_), (f"Tell me something interesting about {xs}.", fact), (f"Tell me a fun fact about {xs}.", fact),
        (f"What do {xs} do all day?", day), (f"What would {a} say if it could talk?", f"{capital(a)} would say, \"{wish}\""),
        (f"Write a sentence about {a} and {thing}.", rng.choice([f"The {n} found {thing} and took it home.", f"The {n} looked at {thing} and smiled.", f"One day the {n} saw {thing} in the grass."])),
        (f"Write a short letter to {a}.", f"Dear {n},\n{letter}\nYour friend, Demo."),
        (f"I want to have {a}.", rng.choice([f"Why would you like to have {a}?", f"That is a nice wish. What would you do with {a}?"]) if n not in W.PEOPLE else "People are free, but you can be friends!"),
        (f"I would like to be {a}.", rng.choice([f"How interesting! What would you do first as {a}?", f"Why would you like to be {a}?"])),
        (f"I dreamed of {a}.", rng.choice([f"What did the {n} do in your dream?", "That sounds interesting! Was it a good dream?"])),
    ]), fact


def relative(rng):
    who, v, n = rng.choice(WHO), rng.choice(list(L.VERBS)), rng.choice(W.ANIMALS + W.THINGS)
    return *rng.choice([
        (f"How can I be kind to my {who}?", rng.choice([f"Help your {who} with the work, listen well and say thank you.", f"You can give your {who} a hug and ask how the day was.",
                                                         f"Draw a picture for your {who}, or make some tea."])),
        (f"Say something nice to my {who}.", rng.choice([f"You are a wonderful {who}. Thank you for everything!", f"Dear {who}, you make every day a little brighter."])),
        (f"My {who} can {v} very well.", rng.choice([f"That is great! Can you {v}, too?", f"How nice! Your {who} can teach you.", f"You can be proud of your {who}!"])),
        (f"Write a sentence with the word {n}.", rng.choice([f"My {who} has seen {some(n)} today.", f"I told my {who} about {some(n)}.", f"There is {some(n)} in this picture."])),
    ]), "A kind word is always good."


MAKERS = [("fact", verb, 24), ("fact", beast_and_verb, 12), ("fact", adjective, 10), ("talk", feeling, 8), ("fact", place, 14), ("fact", object_, 28), ("task", creature, 16), ("task", relative, 6)]
FOLLOW = {
    "Thank you!": ["You are welcome!", "You are welcome! Is there anything else?", "My pleasure!"],
    "That is interesting.": ["I am glad that you like it.", "Yes, I think so, too. Do you want to know more?"],
    "I did not know that.": ["Now you know it! There is always something new to learn.", "Then you learned something new today."],
    "Really?": ["Yes, as far as I know. But I am only a small model, and I can be wrong.", "I think so. But it is good to ask somebody else, too."],
    "That is nice.": ["Yes, I think so, too!", "I am glad that you like it."],
    "I don't know.": ["That is all right. We can think about it together.", "That is fine. We can talk about something else."],
    "Yes, I do.": ["That is good! Tell me more about it.", "How nice!"], "It was fun.": ["I am happy to hear that! What was the best part?", "That is great! Will you do it again?"],
    "My friend was there too.": ["It is nice to have a friend with you. What did you do together?", "Good! Everything is more fun with a friend."],
    "What about you?": ["I am only a small computer program, but I like to hear about it.", "I cannot do that, but I like to talk with you."],
    "I think so.": ["I think so, too.", "That is good to hear."], "It was very nice.": ["I am glad! What did you like best?", "That is good to hear."],
    "What should I do now?": ["You could go outside, read a book or call a friend.", "How about a story? Or you could draw a picture of it."],
}

ASKED = ["Thank you!", "That is interesting.", "I did not know that.", "Really?", "That is nice."]
TOLD = [ask for ask in FOLLOW if ask not in ASKED[1:4]]


def conversation(rng):
    """(kind, turns); casual spelling is the caller's business."""
    kind, make, _ = rng.choices(MAKERS, [w for *_, w in MAKERS])[0]
    question, answer, more = make(rng)
    turns = [(fix(question), fix(answer))]
    if rng.random() < 0.4:
        if more and more not in answer and rng.random() < 0.5:
            turns.append((rng.choice(["Tell me more.", "More, please.", "What else?", "Can you give me an example?", "Another one, please.", "Why?"]), fix(more)))
        else:
            ask = rng.choice(TOLD if question.startswith(("I ", "My ", "We ", "Yesterday")) else ASKED)
            turns.append((ask, rng.choice(FOLLOW[ask])))
    return kind, turns
