"""Invented names, built from parts so that most of them are new to the model."""

from random import Random

# fmt: off
PLACE_HEADS = (
    "Ra", "Mon", "Bel", "Cor", "Tal", "Ver", "Lun", "Sal", "Pen", "Dor", "Fen", "Gal",
    "Har", "Kes", "Mar", "Nor", "Or", "Pal", "Quin", "Ros", "Sil", "Tor", "Val", "Wil",
)
PLACE_TAILS = (
    "vello", "dina", "mond", "tera", "wick", "lando", "nova", "bury", "cetto", "dale",
    "fino", "gard", "lita", "mere", "nello", "porta", "rico", "sona", "tino", "vista",
    "zano", "bria", "ster", "quay",
)
FIRST_NAMES = (
    "Mia", "Tom", "Anna", "Ben", "Clara", "David", "Ella", "Felix", "Grace", "Hugo",
    "Iris", "Jack", "Kate", "Leo", "Maya", "Noah", "Olga", "Paul", "Rosa", "Sam",
    "Tara", "Victor", "Wendy", "Zoe",
)
SHE = frozenset(
    ("Mia", "Anna", "Clara", "Ella", "Grace", "Iris", "Kate", "Maya", "Olga", "Rosa",
     "Tara", "Wendy", "Zoe")
)
# fmt: on


def place(rng: Random) -> str:
    """Draw one of 576 place, brand or family names."""
    return rng.choice(PLACE_HEADS) + rng.choice(PLACE_TAILS)


def people(rng: Random, count: int) -> list[str]:
    """Draw different first names."""
    return rng.sample(FIRST_NAMES, count)


def pronoun(name: str) -> str:
    """Return "she" or "he" for a first name."""
    return "she" if name in SHE else "he"
