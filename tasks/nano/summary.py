"""Dialogue summarisation: friends settle something in a chat; the summary states what was agreed.

The chat may hold chatter that does not matter and corrections that do ("sorry, Friday is better"),
so the summary needs the *last* value of every fact. The agreed values together decide the split.
"""

from dataclasses import dataclass
from random import Random

from . import names
from .documents import Document, capital, make_document, pick, split_of

NAME = "nano_summary"

# fmt: off
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TIMES = ("8", "9", "10", "11", "noon", "2", "3", "4", "5", "6", "7")
PLACES = ("the park", "the station", "the library", "the office", "the old bridge", "the market", "the harbour",
          "school")
DISHES = ("soup", "pasta", "a cake", "salad", "curry", "bread", "cheese", "fruit", "juice", "a pie")
THINGS = ("the drill", "the tent", "the bike", "the ladder", "the camera", "the guitar", "the book", "the suitcase")
GAMES = ("play tennis", "go swimming", "play chess", "watch a film", "go hiking", "study maths", "paint", "have lunch")
GUESTS = ("my aunt", "my brother", "my cousin", "the new teacher", "our boss", "a friend from school", "my sister")
TASKS = ("the report", "the poster", "the budget", "the speech", "the website", "the invoice", "the plan", "the survey")
TOWNS = ("Arlen", "Breck", "Calder", "Dunmor", "Elstow", "Farley", "Gorsk", "Hilden", "Isling")
RIDES = ("train", "bus", "car", "ferry", "bike", "plane")
OCCASIONS = ("party", "picnic", "school fair", "reunion", "club night", "wedding")

CHATTER = (
    "Did you see the rain this morning?", "I am so tired today.", "My phone is almost dead.", "How is your dog?",
    "I just had a huge breakfast.", "The bus was late again.", "I love that new song.", "My neighbour is so loud.",
    "Work was busy today.", "I lost my keys again.", "The match last night was great.", "It is really cold outside.",
)
REPLIES = ("Oh really?", "I know!", "Same here.", "Ha, I see.", "That is life.", "Poor you.", "Nice.", "Tell me later.")
AGREE = ("Fine with me.", "Sounds good.", "Perfect.", "OK, great.", "Sure.", "Works for me.", "Deal.",
         "Yes, let us do that.")
CHANGE = ("No, make it {}.", "Sorry, {} is better for me.", "Wait, can we say {}?", "Hmm, I meant {}.",
          "Let us change that to {}.")
# fmt: on


@dataclass(frozen=True)
class Scenario:
    """One thing to settle: how it is proposed in the chat and how it is reported."""

    slots: tuple[tuple[str, tuple[str, ...]], ...]
    """Slot names and their values."""
    open: tuple[str, str]
    """First turn, by the first speaker; two wordings."""
    follow: tuple[str, str]
    """Later turn with the remaining slots, by either speaker; two wordings."""
    report: tuple[str, str, str]
    """Summaries with {a} and {b} for the speakers; three wordings."""
    changeable: tuple[str, ...]
    """Slots that a correction may touch."""


SCENARIOS = (
    Scenario(
        (("game", GAMES), ("day", DAYS), ("time", TIMES), ("place", PLACES)),
        ("Shall we {game} on {day}?", "Do you want to {game} on {day}?"),
        ("We could meet at {place} at {time}.", "How about {time} at {place}?"),
        (
            "{a} and {b} will {game} on {day}. They will meet at {place} at {time}.",
            "On {day}, {a} and {b} will {game}. They meet at {time} at {place}.",
            "{a} and {b} agree to {game} on {day} and to meet at {place} at {time}.",
        ),
        ("day", "time", "place"),
    ),
    Scenario(
        (("thing", THINGS), ("day", DAYS), ("back", DAYS), ("place", PLACES)),
        ("Can I borrow {thing} from you on {day}?", "Could you lend me {thing} on {day}?"),
        ("You can get it at {place}, but I need it back on {back}.", "Pick it up at {place}. Bring it back on {back}."),
        (
            "{a} will borrow {thing} from {b} on {day} at {place} and return it on {back}.",
            "{b} lends {thing} to {a} on {day} at {place}. {a} will bring it back on {back}.",
            "{a} can pick up {thing} from {b} at {place} on {day}. {b} needs it back on {back}.",
        ),
        ("day", "back", "place"),
    ),
    Scenario(
        (("guest", GUESTS), ("day", DAYS), ("time", TIMES), ("place", PLACES)),
        ("Can you pick up {guest} on {day}?", "I need somebody to collect {guest} on {day}."),
        ("Be at {place} at {time}, please.", "You should be there at {time}, at {place}."),
        (
            "{b} will pick up {guest} for {a} at {place} on {day} at {time}.",
            "{a} asks {b} to collect {guest} on {day}. {b} will be at {place} at {time}.",
            "On {day} at {time}, {b} will collect {guest} for {a} at {place}.",
        ),
        ("day", "time", "place"),
    ),
    Scenario(
        (("task", TASKS), ("day", DAYS), ("time", TIMES), ("place", PLACES)),
        ("Can you finish {task} by {day}?", "I need {task} from you by {day}."),
        ("We can look at it together at {place} at {time}.", "Then let us go over it at {time} at {place}."),
        (
            "{b} will finish {task} for {a} by {day}. They will look at it at {place} at {time}.",
            "{a} needs {task} by {day}. {a} and {b} will go over it at {time} at {place}.",
            "{b} promises {a} to finish {task} by {day} and to meet at {place} at {time}.",
        ),
        ("task", "day", "time", "place"),
    ),
    Scenario(
        (("town", TOWNS), ("day", DAYS), ("ride", RIDES), ("time", TIMES)),
        ("Are you coming to {town} on {day}?", "Let us travel to {town} on {day}."),
        ("I would take the {ride} at {time}.", "There is a {ride} at {time}. Let us take that."),
        (
            "{a} and {b} will travel to {town} by {ride} on {day}. They leave at {time}.",
            "On {day}, {a} and {b} will take the {ride} to {town} at {time}.",
            "{a} and {b} plan a trip to {town} on {day} and take the {ride} at {time}.",
        ),
        ("town", "day", "ride", "time"),
    ),
    Scenario(
        (("occasion", OCCASIONS), ("dish", DISHES), ("drink", DISHES), ("day", DAYS)),
        ("The {occasion} is on {day}. Can you bring {dish}?", "Will you make {dish} for the {occasion} on {day}?"),
        ("And I will bring {drink}.", "I can make {drink} then."),
        (
            "The {occasion} is on {day}. {b} will bring {dish} and {a} will bring {drink}.",
            "{b} will make {dish} for the {occasion} on {day}. {a} will bring {drink}.",
            "{a} and {b} plan the {occasion} on {day}. {b} brings {dish} and {a} brings {drink}.",
        ),
        ("dish", "day"),
    ),
)


def draw_one(rng: Random, split: str) -> Document:
    """Draw one document of the split."""
    scenario = rng.choice(SCENARIOS)
    final = _values(rng, scenario)
    while split_of("|".join((scenario.report[0], *final.values()))) != split:
        final = _values(rng, scenario)
    difficulty = rng.randint(1, 4)
    speakers = names.people(rng, 3)
    prompt = "chat:\n" + "\n".join(_chat(rng, scenario, final, speakers, difficulty)) + "\nsummary:"
    a, b = speakers[:2]
    references = [capital(report.format(a=a, b=b, **final)) for report in scenario.report]
    rng.shuffle(references)
    return make_document(NAME, split, prompt, references, difficulty)


def _values(rng: Random, scenario: Scenario) -> dict[str, str]:
    """Draw values of all slots, different where two slots share their options."""
    values: dict[str, str] = {}
    for slot, options in scenario.slots:
        values[slot] = pick(rng, tuple(option for option in options if option not in values.values()))
    return values


def _chat(rng: Random, scenario: Scenario, final: dict[str, str], speakers: list[str], difficulty: int) -> list[str]:
    """Write the turns: 1 is plain, 2 has chatter, 3 and 4 have one and two corrections, 4 a third voice."""
    a, b, other = speakers
    options = dict(scenario.slots)
    said = dict(final)
    corrected = rng.sample(scenario.changeable, max(0, difficulty - 2))
    for slot in corrected:
        said[slot] = pick(
            rng, tuple(value for value in options[slot] if value not in {*said.values(), *final.values()})
        )
    opening, follow = pick(rng, scenario.open), pick(rng, scenario.follow)
    lender = scenario.follow[0].startswith("You can get it")  # only the lender may set the terms
    turns = [f"{a}: Hi {b}! {opening.format(**said)}"]
    turns += (
        [f"{b}: {pick(rng, AGREE)} {follow.format(**said)}"]
        if lender
        else [
            f"{b}: {pick(rng, AGREE)}",
            f"{a}: {follow.format(**said)}",
        ]
    )
    for slot in corrected:
        # The correction must name what it changes where another slot has values of the same sort.
        what = _correction(rng, scenario, slot, said, final)
        turns.append(f"{pick(rng, (a, b))}: {what}")
        said[slot] = final[slot]
    turns.append(f"{pick(rng, (a, b))}: {pick(rng, AGREE)}")
    if difficulty >= 2:
        at = rng.randint(1, len(turns) - 1)
        first, second = (a, b) if rng.random() < 0.5 else (b, a)
        turns[at:at] = [
            f"{other if difficulty == 4 else first}: {pick(rng, CHATTER)}",
            f"{second}: {pick(rng, REPLIES)}",
        ]
    return turns


def _correction(rng: Random, scenario: Scenario, slot: str, said: dict[str, str], final: dict[str, str]) -> str:
    """Say the new value; ambiguous ones name the old value too."""
    options = dict(scenario.slots)
    shared = sum(values == options[slot] for values in options.values()) > 1
    if shared:
        return f"Sorry, not {said[slot]} but {final[slot]}."
    return capital(pick(rng, CHANGE).format(final[slot]))
