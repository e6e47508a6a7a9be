"""Plain text about the world of the demo, on which its model learns to read.

In: the facts of `world`. Out: documents of short passages, each about one fact.
"""

from random import Random

from symnoise_ray.demo.world import COMPOSED, LOOKED_UP, TOPICS

PROSE: dict[str, tuple[str, ...]] = {
    "opposite": (
        "The opposite of {word} is {other}.",
        "The opposite of {word}, in one word:\n{other}",
        "Nothing can be {word} and {other} at once.",
    ),
    "plural": (
        "The plural of {name} is {plural}.",
        "One {name} is alone, but many {plural} are a crowd.",
    ),
    "past": (
        "The past tense of {base} is {past}.",
        "The past of {base}, in one word:\n{past}",
        "To {base} is for today, and yesterday we {past}.",
    ),
    "sound": (
        "The {name} says {sound}.",
        "The sound of the {name} is {sound}.",
        "Everyone knows what noise the {name} makes: the {name} says {sound}.",
    ),
    "young": (
        "A baby {name} is called a {young}.",
        "The {young} grows up and becomes a {name}.",
        "The word for a young {name} is {young}.",
    ),
    "color": (
        "The {name} is {color}.",
        "The color of the {name} is {color}.",
        "The color of the {name}, in one word:\n{color}",
    ),
    "category": (
        "The {name} is {category}.",
        "What kind of thing it is, all can see: the {name} is {category}.",
    ),
    "place": (
        "People {action} {place}.",
        "Those who like to {action} do it {place}.",
        "Where to {action} is no secret: people {action} {place}.",
    ),
    "neighbour": (
        "Right {side} {item} comes {next}.",
        "Look at {item}, and right {side} it comes {next}.",
    ),
    "describe": (
        "The {name} is a {size} {color} animal that lives in the {home}.",
        "Not far from here lives the {name}, a {size} {color} animal of the {home}.",
    ),
    "rhyme": (
        "The word {word} rhymes with {other}.",
        "Poets like to put {word} and {other} together, since they rhyme.",
    ),
    "owner": (
        "{first} has the {thing}. {second} has the {other}. The owner of the {what} is {who}.",
        "{first} has the {thing}. {second} has the {other}.\nThe {what} belongs to {who}. "
        "{who} has the {what}.",
        "The {thing} belongs to {first}, so {first} has the {thing}.",
    ),
    "edges": (
        "{words}\nThe {edge} word is {word}.",
        "{words}\nThis line begins with {a} and ends with {z}.",
    ),
    "count": (
        "{items}\nThe number of words here is {number}.",
        "{items}\nThe number of words, in one word:\n{number}",
    ),
    "order": (
        "{a} and {b}\nThe smaller number comes first now:\n{low}, {high}",
        "Of {a} and {b} the smaller number is {low} and the larger is {high}.",
    ),
    "check": (
        "The {name} is in the {room}. It is true that the {name} is in the {room}.",
        "The {name} is in the {room}. Someone thinks that the {name} is in the {asked}.\n"
        "{verdict}, the {name} is in the {room}.",
    ),
    "repeat": (
        "{words}\nThe same line again:\n{words}",
        "{who} says {words}, and again {who} says {words}.",
    ),
    "tense": (
        "Today {who} {third} the {thing}. Yesterday {who} {past} the {thing}.",
        "{who} {third} the {thing}. The day before:\n{who} {past} the {thing}.",
    ),
}


def passage(rng: Random) -> str:
    """Write a short passage that states one fact in one or two ways."""
    # Copying from what was just said is harder to learn than a fixed table, so it comes more often.
    topic = rng.choice((*LOOKED_UP, *COMPOSED, *COMPOSED))
    fact = TOPICS[topic](rng)
    lines = rng.sample(PROSE[topic], rng.randint(1, 2))
    return "\n".join(line.format(**fact) for line in lines)


def document(rng: Random) -> str:
    """Write a document of a few unrelated passages."""
    return "\n".join(passage(rng) for _ in range(rng.randint(2, 6)))
