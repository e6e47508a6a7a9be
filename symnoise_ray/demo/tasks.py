"""The task families of the demo: questions and orders about its small world, with gold answers.

A family takes the facts of one topic of ``world``, asks for them in several phrasings and
answers by one template. Rows are drawn without repetition, and every family gives the same
number of rows to each of the three sets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from symnoise_ray.demo.world import TOPICS

Row = dict[str, str]
SIZES = {"train": 32, "eval": 6, "confirm": 6}


@dataclass(frozen=True)
class Family:
    """One family: the answer, the phrasings and the given text into which the facts are put."""

    topic: str
    answer: str
    asks: tuple[str, ...]
    given: str = ""

    def rows(self, rng: Random) -> Iterator[Row]:
        """Yield endless rows in which no (instruction, input) pair comes twice."""
        seen = set()
        while True:
            fact = TOPICS[self.topic](rng)
            instruction = rng.choice(self.asks).format(**fact)
            given = self.given.format(**fact)
            if (instruction, given) not in seen:
                seen.add((instruction, given))
                output = self.answer.format(**fact)
                yield {
                    "instruction": instruction,
                    "input": given,
                    "output": output,
                    "dataset": self.topic,
                }


FAMILIES = (
    Family(
        "opposite",
        "{other}",
        (
            "What is the opposite of {word}?",
            "Give the opposite of {word}.",
            "Which word means the opposite of {word}?",
        ),
    ),
    Family(
        "plural",
        "The plural of {name} is {plural}.",
        (
            "What is the plural of {name}?",
            "Give the plural of {name}.",
            "Write {name} in the plural.",
        ),
    ),
    Family(
        "past",
        "{past}",
        (
            "What is the past tense of {base}?",
            "Give the past of {base}.",
            "Put the verb {base} in the past tense.",
            "Write {base} as if it was yesterday.",
        ),
    ),
    Family(
        "sound",
        "The {name} says {sound}.",
        (
            "What does the {name} say?",
            "Which sound does a {name} make?",
            "Name the sound of the {name}.",
            "How does the {name} sound?",
        ),
    ),
    Family(
        "young",
        "A baby {name} is called a {young}.",
        (
            "What is a baby {name} called?",
            "Name the young of the {name}.",
            "What do we call a young {name}?",
            "Give the word for a baby {name}.",
        ),
    ),
    Family(
        "color",
        "{color}",
        (
            "What color is the {name}?",
            "Name the color of the {name}.",
            "Which color does the {name} have?",
        ),
    ),
    Family(
        "category",
        "The {name} is {category}.",
        (
            "What kind of thing is the {name}?",
            "Say what the {name} is.",
            "Which kind does the {name} belong to?",
        ),
    ),
    Family(
        "place",
        "People {action} {place}.",
        (
            "Where do people {action}?",
            "Name the place where people {action}.",
            "Where can I {action}?",
            "Tell me where to {action}.",
        ),
    ),
    Family(
        "neighbour",
        "Right {side} {item} comes {next}.",
        (
            "What comes right {side} {item}?",
            "Name what comes {side} {item}.",
            "Which one is right {side} {item}?",
        ),
    ),
    Family(
        "describe",
        "The {name} is a {size} {color} animal that lives in the {home}.",
        (
            "Describe the {name}.",
            "Tell me about the {name}.",
            "Write a sentence about the {name}.",
            "What do you know about the {name}?",
        ),
    ),
    Family(
        "rhyme",
        "The word {word} rhymes with {other}.",
        (
            "Which word rhymes with {word}?",
            "Give a rhyme for {word}.",
            "Find a word that rhymes with {word}.",
        ),
    ),
    Family(
        "owner",
        "{who} has the {what}.",
        (
            "Who has the {what}?",
            "Say who the owner of the {what} is.",
            "Whose is the {what}?",
        ),
        "{first} has the {thing}. {second} has the {other}.",
    ),
    Family(
        "edges",
        "The {edge} word is {word}.",
        (
            "What is the {edge} word?",
            "Give the {edge} word of the line.",
            "Write down only the {edge} word.",
        ),
        "{words}",
    ),
    Family(
        "count",
        "{number}",
        ("How many words are there?", "Count the words.", "How often is {word} written?"),
        "{items}",
    ),
    Family(
        "order",
        "{low}, {high}",
        (
            "Sort the two numbers.",
            "Write the smaller number first.",
            "Put the numbers in order.",
        ),
        "{a} and {b}",
    ),
    Family(
        "check",
        "{verdict}, the {name} is in the {room}.",
        (
            "Is the {name} in the {asked}?",
            "Is it true that the {name} is in the {asked}?",
            "Say yes or no: is the {name} in the {asked}?",
        ),
        "The {name} is in the {room}.",
    ),
    Family(
        "repeat",
        "{words}",
        ("Repeat the words.", "Copy the line.", "Write the same words again."),
        "{words}",
    ),
    Family(
        "tense",
        "{who} {past} the {thing}.",
        (
            "Put the sentence in the past tense.",
            "Write the sentence as if it was yesterday.",
            "Change the sentence to the past.",
        ),
        "{who} {third} the {thing}.",
    ),
)


def row_sets(seed: int) -> dict[str, list[Row]]:
    """Return the rows of the three sets, each in a shuffled order."""
    rng = Random(seed)
    sets: dict[str, list[Row]] = {name: [] for name in SIZES}
    for family in FAMILIES:
        rows = family.rows(rng)
        for name, size in SIZES.items():
            sets[name] += [next(rows) for _ in range(size)]
    for rows_of_set in sets.values():
        rng.shuffle(rows_of_set)
    return sets
