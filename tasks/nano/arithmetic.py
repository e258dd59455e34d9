"""Word problems: a short story with small numbers; the target writes every step, then the answer.

A story is an opening (a quantity, a sum, a product, an equal share) followed by events that change
it, or a closing comparison. The chain of operations decides the split, so the numbers of a test
problem were never seen together in training, whatever the story around them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from . import names
from .documents import Document, make_document, pick, split_of

NAME = "nano_math"

LARGEST = 99
"""No number in a problem or a step is larger."""
# fmt: off
ITEMS = ("apples", "coins", "books", "stamps", "pencils", "shells", "cards", "stickers",
         "eggs", "buttons", "marbles", "plums")
HOLDERS = ("boxes", "bags", "baskets", "jars", "drawers", "packs")
GAINS = ("buys {} more", "finds {} more", "wins {} more", "gets {} more from a friend", "picks up {} more")
LOSSES = ("gives away {}", "loses {}", "sells {}", "throws away {}", "lends {} to a friend")
# fmt: on


@dataclass
class Story:
    """What has been told so far."""

    who: str
    other: str
    item: str
    value: int
    text: list[str]
    steps: list[str]

    @property
    def they(self) -> str:
        """Return the pronoun that opens the next sentence."""
        return names.pronoun(self.who).capitalize()

    def step(self, left: int, sign: str, right: int) -> int:
        """Write "left sign right = result" and return the result."""
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
        self.steps.append(f"{left} {sign} {right} = {result}")
        return result


def _have(rng: Random, story: Story) -> None:
    story.value = rng.randint(5, 60)
    story.text.append(f"{story.who} has {story.value} {story.item}.")


def _product(rng: Random, story: Story) -> None:
    groups, each = rng.randint(2, 9), rng.randint(2, 9)
    holder = pick(rng, HOLDERS)
    story.text.append(f"{story.who} has {groups} {holder} with {each} {story.item} in each.")
    story.value = story.step(groups, "*", each)


def _sum(rng: Random, story: Story) -> None:
    mine, theirs = rng.randint(4, 45), rng.randint(4, 45)
    story.text.append(f"{story.who} has {mine} {story.item} and {story.other} has {theirs}. They put them together.")
    story.value = story.step(mine, "+", theirs)


def _days(rng: Random, story: Story) -> None:
    days, each = rng.randint(2, 9), rng.randint(2, 9)
    story.text.append(f"{story.who} collects {each} {story.item} a day for {days} days.")
    story.value = story.step(days, "*", each)


def _gain(rng: Random, story: Story) -> bool:
    if story.value > LARGEST - 3:
        return False
    more = rng.randint(2, min(40, LARGEST - story.value))
    story.text.append(f"{story.they} {pick(rng, GAINS).format(more)}.")
    story.value = story.step(story.value, "+", more)
    return True


def _loss(rng: Random, story: Story) -> bool:
    if story.value < 6:
        return False
    less = rng.randint(2, min(40, story.value - 2))
    story.text.append(f"{story.they} {pick(rng, LOSSES).format(less)}.")
    story.value = story.step(story.value, "-", less)
    return True


def _share(rng: Random, story: Story) -> bool:
    divisors = [d for d in range(2, 10) if story.value % d == 0 and 2 <= story.value // d <= 20]
    if not divisors:
        return False
    parts = rng.choice(divisors)
    text = f"{story.they} shares them equally among {parts} friends and takes one share back."
    story.text.append(pick(rng, (text, f"{story.they} sorts them into {parts} equal piles and keeps one pile.")))
    story.value = story.step(story.value, "/", parts)
    return True


def _multiply(rng: Random, story: Story) -> bool:
    factors = [f for f in (2, 3, 4) if story.value * f <= LARGEST]
    if not factors or story.value > 33:
        return False
    factor = rng.choice(factors)
    story.text.append(f"Then the number of {story.item} grows to {factor} times as many.")
    story.value = story.step(story.value, "*", factor)
    return True


def _ask(rng: Random, story: Story) -> None:
    story.text.append(
        pick(rng, (f"How many {story.item} does {story.who} have now?", f"How many {story.item} are there in the end?"))
    )


def _compare(rng: Random, story: Story) -> bool:
    """Close with a comparison to somebody else's number: one more step."""
    theirs = rng.randint(3, 80)
    if theirs == story.value:
        return False
    who, less = (story.who, story.other) if story.value > theirs else (story.other, story.who)
    story.text.append(f"{story.other} has {theirs}. How many more {story.item} does {who} have than {less}?")
    story.value = story.step(max(story.value, theirs), "-", min(story.value, theirs))
    return True


def _price(rng: Random, story: Story) -> bool:
    """Close by selling everything left at a price for one: one more step."""
    prices = [p for p in range(2, 10) if story.value * p <= LARGEST]
    if story.value > 12 or not prices:
        return False
    price = rng.choice(prices)
    story.text.append(f"{story.they} sells them all for {price} euros each. How many euros does {story.who} get?")
    story.value = story.step(story.value, "*", price)
    return True


OPENINGS: tuple[Callable[[Random, Story], None], ...] = (_have, _have, _product, _sum, _days)
EVENTS: tuple[Callable[[Random, Story], bool], ...] = (_gain, _loss, _gain, _loss, _share, _share, _multiply)
CLOSINGS: tuple[Callable[[Random, Story], bool], ...] = (_compare, _price)


def draw_one(rng: Random, split: str) -> Document:
    """Draw one document of the split; its difficulty is its number of steps."""
    difficulty = rng.randint(1, 4)
    story = _tell(rng, difficulty)
    while split_of(";".join(story.steps)) != split:
        story = _tell(rng, difficulty)
    prompt = "problem: " + " ".join(story.text) + "\nsolution:"
    solution = ". ".join(story.steps) + f". answer: {story.value}"
    return make_document(NAME, split, prompt, [solution], difficulty)


def _tell(rng: Random, steps: int) -> Story:
    """Tell a story of exactly this many steps."""
    who, other = names.people(rng, 2)
    story = Story(who, other, pick(rng, ITEMS), 0, [], [])
    opening = rng.choice(OPENINGS)
    opening(rng, story)
    closing = rng.choice(CLOSINGS) if rng.random() < 0.35 and len(story.steps) < steps else None
    while len(story.steps) < steps - (closing is not None):
        rng.choice(EVENTS)(rng, story)
    if closing is None:
        _ask(rng, story)
    elif not closing(rng, story):
        # The number in hand does not fit this closing; a gain or a loss always does one of the two.
        if not _loss(rng, story):
            _gain(rng, story)
        _ask(rng, story)
    return story
