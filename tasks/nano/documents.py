"""The document every nano generator makes, and the rule that keeps the splits apart.

A document belongs to a split because of *what it says* (its combination of names, values or
words), never because of when it was drawn: the combination is hashed, and the hash names the
split. A test document drawn from any seed can therefore never occur in train or fit.
"""

import hashlib
from dataclasses import dataclass
from random import Random

SPLITS = ("train", "fit", "test")


@dataclass(frozen=True)
class Document:
    """One prompt with its acceptable outputs."""

    id: str
    """Task, split and a digest of the prompt."""
    input: str
    """The complete prompt; the model continues it with a space and a reference."""
    references: tuple[str, ...]
    """Acceptable outputs; training uses the first."""
    difficulty: int
    """1 (easiest) to 4, set by the number of facts, turns, steps or clauses."""


def split_of(combination: str) -> str:
    """Name the split that owns a combination: 80 % train, 10 % fit, 10 % test."""
    bucket = int.from_bytes(hashlib.sha256(combination.encode()).digest()[:4], "big") % 10
    return "test" if bucket == 9 else "fit" if bucket == 8 else "train"


def make_document(task: str, split: str, prompt: str, references: list[str], difficulty: int) -> Document:
    """Build a document whose id follows from its prompt alone."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:12]
    unique = tuple(dict.fromkeys(references))
    return Document(f"{task}-{split}-{digest}", prompt, unique, difficulty)


def article(word: str) -> str:
    """Return "a" or "an" for a lower-case English word."""
    return "an" if word[0] in "aeiou" else "a"


def listing(items: list[str]) -> str:
    """Join items as English does: "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def capital(sentence: str) -> str:
    """Return the sentence with its first letter upper-case, the rest untouched."""
    return sentence[:1].upper() + sentence[1:]


def pick(rng: Random, options: tuple[str, ...]) -> str:
    """Choose one option."""
    return options[rng.randrange(len(options))]
