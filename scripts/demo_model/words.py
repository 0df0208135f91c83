"""Word lists that prompts are made of: plain words that a small child knows."""

ANIMALS = """fox cat dog mouse bear rabbit bird duck frog owl lion tiger elephant monkey horse cow pig sheep goat hen
rooster chick puppy kitten squirrel hedgehog deer wolf turtle snail bee ant butterfly spider ladybug fish whale dolphin
shark crab octopus seal penguin swan goose parrot crow eagle snake lizard camel giraffe zebra hippo kangaroo koala panda
donkey lamb calf pony mole badger beaver otter bat worm beetle dragonfly firefly cricket seagull robin pigeon turkey
peacock starfish jellyfish caterpillar chicken raccoon""".split()

PEOPLE = """girl boy farmer baker teacher doctor king queen prince princess pirate sailor painter singer dancer gardener
fisherman shepherd grandmother grandfather mother father sister brother baby friend neighbor mailman cook knight wizard
giant clown firefighter nurse builder driver shopkeeper artist explorer astronaut scientist librarian tailor miller
hunter""".split()

FANTASY = "dragon fairy robot snowman unicorn mermaid elf ghost monster teddy puppet scarecrow".split()

GIRLS = """Lily Mia Anna Lucy Sara Emma Ella Rosie Kate Nora Amy Zoe Grace Molly Ruby Alice Daisy Poppy Clara Ivy Sophie
Jane Hannah Bella Maya""".split()
BOYS = """Tom Ben Sam Max Tim Jack Leo Jim Dan Finn Bob Pip Oliver Toby Charlie Peter Felix Oscar Harry Luke Theo Hugo
Freddy Otto Milo""".split()
SHE = "girl queen princess grandmother mother sister hen mermaid cow nurse fairy".split()
HE = "boy king prince father brother grandfather rooster knight mailman fisherman wizard snowman".split()

PLACES = """forest river lake sea beach mountain hill valley village town city farm garden park school house castle cave
island desert jungle field meadow pond barn kitchen bedroom attic library museum zoo market bakery shop street bridge
road harbor tower hospital playground station circus train bus boat ship treehouse nest tent cottage cabin""".split()

NATURE = """sun moon star sky cloud rain snow wind storm thunder rainbow tree leaf flower rose grass seed root branch
stone rock sand mud water ice fire smoke shadow wave shell feather egg acorn pinecone mushroom berry apple pear plum
cherry orange banana lemon grape strawberry pumpkin carrot potato corn nut honey""".split()

THINGS = """ball kite doll drum bell book pencil paper paint brush box basket bag bottle cup plate spoon bowl pot lamp
candle clock key door window table chair bed blanket pillow mirror ladder rope wheel bicycle car truck wagon train boat
plane balloon umbrella hat coat scarf shoe boot sock glove button needle thread ring crown coin gift letter map flag
lantern broom bucket hammer nail saw shovel net puzzle swing slide sled whistle flute guitar piano camera toy block
sandwich bread cake pie cookie cheese soup milk tea ice-cream pancake candy chocolate butter egg jam popcorn""".split()

ADJECTIVES = """happy sad brave shy kind clever funny lazy busy hungry tired angry scared lonely proud quiet loud gentle
big small little tiny tall short long round soft hard warm cold hot wet dry old new young fast slow strong weak bright
dark shiny dirty clean red blue green yellow white black brown golden silver pink purple orange sweet sour sleepy curious
friendly careful honest lucky magic secret broken lost empty full heavy light pretty strange beautiful silly grumpy
polite patient generous playful noisy fluffy smooth""".split()

VERBS = """run jump swim fly climb dance sing laugh cry smile play hide find look help share give take make build paint
draw read write cook bake eat drink sleep dream wake walk ride drive sail fish dig plant grow pick carry throw catch kick
push pull open close break fix wash clean dry hug kiss wave call shout whisper listen talk ask answer learn teach
remember forget wish hope wait watch follow chase visit thank""".split()

FEELINGS = "happy sad angry scared lonely tired bored proud nervous excited sick worried shy hungry sleepy calm".split()

FOODS = """apples bread soup pancakes cake cookies cheese milk honey carrots potatoes rice pasta pizza eggs salad
sandwiches bananas strawberries ice cream pie chocolate tea popcorn oranges corn tomatoes""".split()

# Plurals that take no plain s.
PLURAL = {"fox": "foxes", "mouse": "mice", "wolf": "wolves", "fish": "fish", "sheep": "sheep", "deer": "deer",
          "goose": "geese", "butterfly": "butterflies", "firefly": "fireflies", "dragonfly": "dragonflies",
          "puppy": "puppies", "pony": "ponies", "ladybug": "ladybugs", "calf": "calves", "leaf": "leaves",
          "berry": "berries", "cherry": "cherries", "strawberry": "strawberries", "octopus": "octopuses",
          "starfish": "starfish", "jellyfish": "jellyfish", "ostrich": "ostriches", "box": "boxes", "brush": "brushes",
          "bus": "buses", "beach": "beaches", "city": "cities", "library": "libraries", "bakery": "bakeries",
          "branch": "branches", "candy": "candies", "fairy": "fairies", "elf": "elves", "baby": "babies",
          "sandwich": "sandwiches", "potato": "potatoes", "valley": "valleys", "fisherman": "fishermen",
          "mailman": "mailmen", "snowman": "snowmen", "finch": "finches"}


def plural(noun: str) -> str:
    return PLURAL.get(noun, noun + "s")


def article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a ") + phrase


MASS = set("rain snow wind thunder grass sand mud water ice fire smoke honey corn paper paint bread cheese soup milk tea ice-cream candy chocolate butter jam popcorn".split())
ONLY = {"sun", "moon", "sky"}


def some(noun: str) -> str:
    """The noun with an article, if it takes one."""
    return noun if noun in MASS else "the " + noun if noun in ONLY else article(noun)
