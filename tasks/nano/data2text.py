"""Data-to-text: a short table of facts becomes two or three fluent sentences.

Six domains share four sentence plans. Every fact is either a modifier of the noun ("near the
harbour") or a verb phrase ("opens at 9") with two wordings, and a plan decides the order, the
wording and the sentence breaks. The pair (name, kind) decides the split.
"""

from dataclasses import dataclass
from random import Random

from . import names
from .documents import Document, article, capital, listing, make_document, pick, split_of

NAME = "nano_data2text"


@dataclass(frozen=True)
class Fact:
    """One attribute of a domain and how it is said."""

    slot: str
    values: tuple[str, ...]
    wordings: tuple[str, str]
    modifier: bool = False
    """True: wordings are prepositional phrases; False: verb phrases."""


@dataclass(frozen=True)
class Domain:
    """One kind of thing to describe."""

    kinds: tuple[str, ...]
    facts: tuple[Fact, ...]
    pronoun: str = "it"
    person: bool = False


# fmt: off
LANDMARKS = ("harbour", "station", "museum", "old bridge", "town hall", "park", "castle", "market")
COLOURS = ("red", "blue", "green", "black", "white", "silver", "yellow", "grey")
HOURS = ("6", "7", "8", "9", "10", "11")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TOWNS = ("Arlen", "Breck", "Calder", "Dunmor", "Elstow", "Farley", "Gorsk", "Hilden", "Isling")

DOMAINS = (
    Domain(
        ("cafe", "bakery", "bistro", "tavern", "pizzeria", "tea house", "diner", "noodle bar"),
        (
            Fact("near", LANDMARKS, ("near the {}", "close to the {}"), True),
            Fact("food", ("Italian", "French", "Thai", "Greek", "Indian", "Mexican", "vegan"),
                 ("serves {} food", "offers {} dishes")),
            Fact("price", ("low", "fair", "high"), ("has {} prices", "asks {} prices")),
            Fact("rating", ("1", "2", "3", "4", "5"),
                 ("is rated {} out of 5", "has a rating of {} out of 5")),
            Fact("opens", HOURS, ("opens at {}", "opens its doors at {}")),
            Fact("closed", DAYS, ("is closed on {}", "stays shut every {}")),
        ),
    ),
    Domain(
        ("hotel", "guest house", "hostel", "inn", "lodge", "villa"),
        (
            Fact("near", LANDMARKS, ("near the {}", "close to the {}"), True),
            Fact("town", TOWNS, ("in {}", "in the town of {}"), True),
            Fact("rooms", ("8", "12", "15", "20", "24", "36", "40"),
                 ("has {} rooms", "offers {} rooms")),
            Fact("stars", ("1", "2", "3", "4", "5"), ("holds {} stars", "was given {} stars")),
            Fact("breakfast", HOURS, ("serves breakfast from {}", "starts breakfast at {}")),
            Fact("extra", ("a pool", "a sauna", "a garden", "a bar", "free parking", "a gym"),
                 ("comes with {}", "also has {}")),
        ),
    ),
    Domain(
        ("painter", "singer", "doctor", "pilot", "chemist", "poet", "lawyer", "farmer"),
        (
            Fact("town", TOWNS, ("from {}", "of {}"), True),
            Fact("born", ("1931", "1942", "1957", "1963", "1978", "1984", "1990"),
                 ("was born in {}", "came into the world in {}")),
            Fact("studied", ("music", "law", "history", "biology", "art", "physics"),
                 ("studied {}", "has a degree in {}")),
            Fact("prize", ("gold medal", "state prize", "silver cup", "young talent award"),
                 ("won the {}", "received the {}")),
            Fact("hobby", ("chess", "sailing", "cooking", "hiking", "tennis", "fishing"),
                 ("enjoys {}", "spends weekends on {}")),
            Fact("children", ("one child", "two children", "three children", "no children"),
                 ("has {}", "is raising {}")),
        ),
        person=True,
    ),
    Domain(
        ("phone", "laptop", "camera", "watch", "tablet", "speaker", "printer"),
        (
            Fact("colour", COLOURS, ("in {}", "with a {} case"), True),
            Fact("price", ("49", "75", "99", "120", "180", "250", "399"),
                 ("costs {} euros", "sells for {} euros")),
            Fact("weight", ("90", "150", "200", "320", "450", "800"),
                 ("weighs {} grams", "has a weight of {} grams")),
            Fact("battery", ("5", "8", "12", "16", "24", "30"),
                 ("runs for {} hours", "lasts {} hours on one charge")),
            Fact("made in", TOWNS, ("is made in {}", "comes from a plant in {}")),
            Fact("warranty", ("one year", "two years", "three years", "five years"),
                 ("has a warranty of {}", "is covered for {}")),
        ),
    ),
    Domain(
        ("festival", "concert", "fair", "exhibition", "race", "lecture", "workshop"),
        (
            Fact("town", TOWNS, ("in {}", "in the town of {}"), True),
            Fact("day", DAYS, ("takes place on {}", "is held on {}")),
            Fact("starts", HOURS, ("starts at {}", "begins at {}")),
            Fact("ticket", ("5", "9", "12", "18", "25", "40"),
                 ("costs {} euros to enter", "has tickets for {} euros")),
            Fact("guests", ("80", "150", "300", "500", "900"),
                 ("expects {} guests", "has room for {} guests")),
            Fact("host", names.FIRST_NAMES, ("is hosted by {}", "is run by {}")),
        ),
    ),
    Domain(
        ("river", "lake", "mountain", "forest", "island", "valley", "canyon"),
        (
            Fact("side", ("north", "south", "east", "west"),
                 ("in the {}", "in the {} of the country"), True),
            Fact("near", TOWNS, ("near {}", "not far from {}"), True),
            Fact("size", ("3", "7", "14", "28", "45", "60", "90"),
                 ("measures {} kilometres", "stretches over {} kilometres")),
            Fact("animals", ("bears", "wolves", "eagles", "otters", "deer", "owls", "foxes"),
                 ("is home to {}", "shelters many {}")),
            Fact("season", ("spring", "summer", "autumn", "winter"),
                 ("is best seen in {}", "draws most visitors in {}")),
            Fact("known for", ("old caves", "clear water", "rare flowers", "steep cliffs"),
                 ("is known for its {}", "is famous for {}")),
        ),
    ),
)
# fmt: on


def draw_one(rng: Random, split: str) -> Document:
    """Draw one document of the split."""
    domain = rng.choice(DOMAINS)
    kind = pick(rng, domain.kinds)
    name, shown = _name(rng, domain, kind)
    while split_of(f"{name}|{kind}") != split:
        name, shown = _name(rng, domain, kind)
    difficulty = rng.randint(1, 4)
    chosen = sorted(rng.sample(range(len(domain.facts)), min(difficulty + 1, 5)))
    facts = [(domain.facts[i], pick(rng, domain.facts[i].values)) for i in chosen]
    table = [("name", name), ("kind", kind), *((fact.slot, value) for fact, value in facts)]
    prompt = "data: " + " | ".join(f"{slot} = {value}" for slot, value in table) + "\ntext:"
    references = [_write(plan, shown, kind, domain, facts) for plan in range(4)]
    rng.shuffle(references)
    return make_document(NAME, split, prompt, references, difficulty)


def _name(rng: Random, domain: Domain, kind: str) -> tuple[str, str]:
    """Draw a name for the table and the subject that the text uses for it."""
    name = names.place(rng)
    if domain.person:
        name = f"{names.people(rng, 1)[0]} {name}"
    return name, name


def _write(plan: int, name: str, kind: str, domain: Domain, facts: list[tuple[Fact, str]]) -> str:
    """Write the facts by one of four plans; odd plans use the second wordings."""
    said = [(f.modifier, f.wordings[plan % 2].format(value)) for f, value in facts]
    modifiers = " ".join(text for is_modifier, text in said if is_modifier)
    phrases = [text for is_modifier, text in said if not is_modifier]
    if plan >= 2:
        phrases.reverse()
    it = names.pronoun(name.split()[0]) if domain.person else domain.pronoun
    tail = f" {modifiers}" if modifiers else ""
    if plan == 0:
        return _sentences(f"{name} is {article(kind)} {kind}{tail}.", it, phrases)
    if plan == 1:
        first = f"The {kind} {name}{tail} {listing(phrases[:2])}." if phrases else ""
        if not first:
            return f"The name of this {kind}{tail} is {name}."
        return _sentences(first, it, phrases[2:])
    if plan == 2:
        opening = f"There is {article(kind)} {kind} called {name}{tail}."
        return _sentences(opening, it, phrases)
    if not phrases:
        return f"{name}{tail} is known as {article(kind)} {kind}."
    return _sentences(f"{name} {phrases[0]}.", it, phrases[1:]) + capital(
        f" {it} is {article(kind)} {kind}{tail}."
    ).replace(f" {it} is", f" {it.capitalize()} is", 1)


def _sentences(first: str, it: str, phrases: list[str]) -> str:
    """Follow the first sentence by sentences of at most two verb phrases each."""
    pairs = [phrases[i : i + 2] for i in range(0, len(phrases), 2)]
    return " ".join([first, *(capital(f"{it} {listing(pair)}.") for pair in pairs)])
