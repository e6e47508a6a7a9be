"""The small world of the demo: its tables of facts, from which rows and prose are drawn by topic.

Every topic yields facts (dictionaries of words). The prose of ``prose`` and the task families of
``tasks`` fill their templates from the same facts. So every fact that is asked about after
fine-tuning was part of pretraining, but as prose and never as a question with an answer.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

Fact = dict[str, str]


def _table(fields: str, rows: str) -> tuple[Fact, ...]:
    """Read a table of single words; ``_`` stands for a space inside a cell."""
    names = fields.split()
    lines = [row.split() for row in rows.strip().splitlines()]
    return tuple(
        {name: cell.replace("_", " ") for name, cell in zip(names, line, strict=True)}
        for line in lines
    )


def _both_ways(pairs: str) -> tuple[Fact, ...]:
    """Read ``a/b`` pairs as facts in both directions."""
    split = [pair.split("/") for pair in pairs.split()]
    return tuple({"word": a, "other": b} for pair in split for a, b in (pair, pair[::-1]))


ANIMALS = _table(
    "name plural young sound color size home",
    """
    cow cows calf moo brown big meadow
    dog dogs puppy woof gray big yard
    cat cats kitten meow black small house
    sheep sheep lamb baa white big meadow
    horse horses foal neigh brown big stable
    duck ducks duckling quack green small pond
    pig pigs piglet oink pink big yard
    hen hens chick cluck red small yard
    frog frogs tadpole croak green tiny pond
    goose geese gosling honk white big pond
    lion lions cub roar yellow huge desert
    wolf wolves whelp howl gray big forest
    mouse mice pinkie squeak gray tiny house
    owl owls owlet hoot brown small forest
    goat goats kid bleat white small mountain
    fox foxes kit yip red small forest
    pigeon pigeons squab coo gray small tower
    eagle eagles eaglet screech black huge mountain
    snake snakes snakelet hiss green tiny desert
    seal seals pup bark black huge sea
    """,
)

THINGS = _table(
    "name plural color category",
    """
    apple apples red a_fruit
    banana bananas yellow a_fruit
    plum plums purple a_fruit
    pear pears green a_fruit
    cherry cherries red a_fruit
    peach peaches pink a_fruit
    hammer hammers gray a_tool
    saw saws blue a_tool
    spade spades brown a_tool
    rake rakes green a_tool
    brush brushes white a_tool
    hat hats black a_garment
    coat coats brown a_garment
    scarf scarves purple a_garment
    sock socks white a_garment
    boot boots black a_garment
    ball balls blue a_toy
    kite kites yellow a_toy
    drum drums red a_toy
    doll dolls pink a_toy
    cup cups white a_dish
    plate plates blue a_dish
    bowl bowls yellow a_dish
    knife knives gray a_tool
    """,
)

VERBS = _table(
    "base third past",
    """
    see sees saw
    find finds found
    hold holds held
    buy buys bought
    bring brings brought
    make makes made
    take takes took
    draw draws drew
    throw throws threw
    catch catches caught
    lose loses lost
    sell sells sold
    keep keeps kept
    hide hides hid
    break breaks broke
    choose chooses chose
    steal steals stole
    carry carries carried
    wash washes washed
    paint paints painted
    lift lifts lifted
    """,
)

PLACES = _table(
    "action place",
    """
    swim in_the_lake
    read in_the_library
    cook in_the_kitchen
    sleep in_the_bedroom
    bake in_the_bakery
    play in_the_park
    dig in_the_garden
    climb on_the_mountain
    row on_the_river
    sail on_the_sea
    wait at_the_station
    study at_the_school
    shop at_the_market
    dance in_the_hall
    plow in_the_field
    hike in_the_forest
    """,
)

OPPOSITES = _both_ways(
    "hot/cold big/small old/new wet/dry dark/bright fast/slow hard/soft full/empty clean/dirty "
    "rich/poor high/low loud/quiet thick/thin early/late near/far strong/weak long/short happy/sad"
)

RHYMES = _both_ways(
    "cat/hat dog/frog moon/spoon tree/bee house/mouse star/car rain/train fox/box ring/king "
    "boat/goat cake/lake bear/pear night/light sock/clock hen/pen wall/ball sand/hand book/hook"
)

PEOPLE = ("Tom", "Mia", "Ben", "Ada", "Leo", "Eva", "Sam", "Ida", "Max", "Zoe", "Finn", "Nora")
COLORS = ("red", "green", "blue", "yellow", "black", "white", "brown", "gray", "pink", "purple")
ROOMS = ("garden", "kitchen", "hall", "library", "park", "market", "school", "station", "stable")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)

NOUNS = tuple({"name": fact["name"], "plural": fact["plural"]} for fact in (*ANIMALS, *THINGS))
KINDS = tuple(
    {"name": fact["name"], "category": fact.get("category", "an animal")}
    for fact in (*THINGS, *ANIMALS)
)


def _neighbours(series: Sequence[str], closed: bool) -> list[Fact]:
    """Return what comes right after and right before each member of an ordered series."""
    pairs = list(pairwise(series))
    if closed:
        pairs.append((series[-1], series[0]))
    after = [{"side": "after", "item": a, "next": b} for a, b in pairs]
    return after + [{"side": "before", "item": b, "next": a} for a, b in pairs]


NEIGHBOURS = tuple(_neighbours(DAYS, closed=True) + _neighbours(NUMBERS, closed=False))


def _from(table: Sequence[Fact]) -> Callable[[Random], Fact]:
    return lambda rng: rng.choice(table)


def _words(rng: Random, count: int) -> list[str]:
    """Draw distinct words that need not make sense together."""
    pool = [fact["name"] for fact in NOUNS] + [fact["word"] for fact in OPPOSITES] + [*COLORS]
    return rng.sample(pool, count)


def _owner(rng: Random) -> Fact:
    first, second = rng.sample(PEOPLE, 2)
    thing, other = (fact["name"] for fact in rng.sample(THINGS, 2))
    who, what = rng.choice(((first, thing), (second, other)))
    owners = {"first": first, "thing": thing, "second": second, "other": other}
    return owners | {"who": who, "what": what}


def _edges(rng: Random) -> Fact:
    words = _words(rng, rng.randint(3, 5))
    edge = rng.choice(("first", "last"))
    word = words[0] if edge == "first" else words[-1]
    return {"words": " ".join(words), "edge": edge, "word": word, "a": words[0], "z": words[-1]}


def _count(rng: Random) -> Fact:
    number = rng.randint(1, 5)
    (word,) = _words(rng, 1)
    return {"items": " ".join([word] * number), "word": word, "number": NUMBERS[number - 1]}


def _order(rng: Random) -> Fact:
    low, high = sorted(rng.sample(range(len(NUMBERS)), 2))
    a, b = rng.sample((low, high), 2)
    return {
        "a": NUMBERS[a],
        "b": NUMBERS[b],
        "low": NUMBERS[low],
        "high": NUMBERS[high],
    }


def _check(rng: Random) -> Fact:
    animal = rng.choice(ANIMALS)["name"]
    room, elsewhere = rng.sample(ROOMS, 2)
    right = rng.random() < 0.5
    verdict = "Yes" if right else "No"
    asked = room if right else elsewhere
    return {"name": animal, "room": room, "asked": asked, "verdict": verdict}


def _repeat(rng: Random) -> Fact:
    return {"words": " ".join(_words(rng, rng.randint(2, 4))), "who": rng.choice(PEOPLE)}


def _tense(rng: Random) -> Fact:
    thing = f"{rng.choice(COLORS)} {rng.choice(THINGS)['name']}"
    return {"who": rng.choice(PEOPLE), "thing": thing, **rng.choice(VERBS)}


LOOKED_UP: dict[str, Callable[[Random], Fact]] = {
    "opposite": _from(OPPOSITES),
    "plural": _from(NOUNS),
    "past": _from(VERBS),
    "sound": _from(ANIMALS),
    "young": _from(ANIMALS),
    "color": _from(THINGS),
    "category": _from(KINDS),
    "place": _from(PLACES),
    "neighbour": _from(NEIGHBOURS),
    "describe": _from(ANIMALS),
    "rhyme": _from(RHYMES),
}
COMPOSED: dict[str, Callable[[Random], Fact]] = {
    "owner": _owner,
    "edges": _edges,
    "count": _count,
    "order": _order,
    "check": _check,
    "repeat": _repeat,
    "tense": _tense,
}
TOPICS = LOOKED_UP | COMPOSED
