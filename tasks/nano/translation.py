"""Translation from plain English into Velic, an invented but consistent language.

Velic in short: the verb stands last; adjectives and numerals follow their noun; prepositions
become postpositions and their phrase stands before the object; a time word opens the clause.
Nouns are of the a, o or i class. The class vowel, with -n in the plural, ends the noun, its
article and its adjectives. Verbs take -u (present), -ash (past) or -esk (future), then -m if the
subject is plural; negation is "ne" before the verb. The triple (subject, verb, object) of every
clause decides the split.
"""

from dataclasses import dataclass
from random import Random

from .documents import Document, capital, make_document, split_of

NAME = "nano_translate"

# fmt: off
# singular, plural, stem in Velic, class vowel
PERSONS = (
    ("farmer", "farmers", "garel", "o"), ("child", "children", "mipt", "i"), ("king", "kings", "ostr", "o"),
    ("queen", "queens", "ostr", "a"), ("teacher", "teachers", "lemn", "a"), ("sailor", "sailors", "vark", "o"),
    ("woman", "women", "shel", "a"), ("man", "men", "shel", "o"), ("doctor", "doctors", "kurim", "a"),
    ("thief", "thieves", "zog", "i"), ("girl", "girls", "pell", "a"), ("boy", "boys", "pell", "o"),
    ("wolf", "wolves", "hurv", "o"), ("dog", "dogs", "bask", "o"), ("cat", "cats", "nur", "a"),
    ("bird", "birds", "tilk", "i"), ("horse", "horses", "dramm", "o"), ("fox", "foxes", "rish", "a"),
)
OBJECTS = (
    ("house", "houses", "tomb", "a"), ("tree", "trees", "yald", "o"), ("river", "rivers", "sul", "a"),
    ("book", "books", "ketr", "i"), ("boat", "boats", "navv", "a"), ("stone", "stones", "gord", "o"),
    ("bread", "breads", "panz", "i"), ("apple", "apples", "meld", "a"), ("knife", "knives", "skar", "i"),
    ("letter", "letters", "ufr", "a"), ("key", "keys", "klim", "i"), ("lamp", "lamps", "lusk", "a"),
    ("coat", "coats", "vest", "o"), ("song", "songs", "kant", "i"), ("flower", "flowers", "bloz", "a"),
    ("ring", "rings", "orv", "i"), ("table", "tables", "mesh", "o"), ("door", "doors", "durr", "a"),
)
PLACES = (
    ("garden", "gardens", "hort", "a"), ("village", "villages", "wikk", "o"), ("forest", "forests", "silb", "a"),
    ("market", "markets", "foram", "o"), ("bridge", "bridges", "pont", "i"), ("mountain", "mountains", "bergh", "o"),
    ("castle", "castles", "burz", "i"), ("road", "roads", "viad", "a"), ("lake", "lakes", "limn", "o"),
)
# third person, base, past, stem in Velic
VERBS = (
    ("sees", "see", "saw", "vid"), ("finds", "find", "found", "trov"), ("buys", "buy", "bought", "komp"),
    ("sells", "sell", "sold", "vend"), ("takes", "take", "took", "grab"), ("loves", "love", "loved", "amol"),
    ("paints", "paint", "painted", "piktar"), ("hides", "hide", "hid", "kel"), ("carries", "carry", "carried", "ferr"),
    ("brings", "bring", "brought", "dukt"), ("loses", "lose", "lost", "perz"), ("needs", "need", "needed", "nezz"),
    ("likes", "like", "liked", "plak"), ("draws", "draw", "drew", "zair"), ("watches", "watch", "watched", "spekt"),
    ("follows", "follow", "followed", "sikv"), ("wants", "want", "wanted", "volm"),
    ("cleans", "clean", "cleaned", "purg"), ("breaks", "break", "broke", "frakt"), ("keeps", "keep", "kept", "hold"),
)
ADJECTIVES = (
    ("old", "vekh"), ("young", "jun"), ("red", "rudd"), ("blue", "azul"), ("green", "zelen"), ("white", "belk"),
    ("black", "chorn"), ("big", "magn"), ("small", "malk"), ("happy", "felis"), ("sad", "trist"), ("strong", "fortr"),
    ("quiet", "tish"), ("rich", "bogat"), ("poor", "paup"), ("clever", "sagh"),
)
NUMERALS = (("two", "dvo"), ("three", "tris"), ("four", "kvar"), ("five", "pent"), ("many", "multo"))
PREPOSITIONS = (("in", "em"), ("near", "apud"), ("behind", "zadu"), ("under", "podi"), ("before", "pred"))
TIMES = (
    (("today", "dinu"), ("now", "nunk"), ("often", "oftu")),
    (("yesterday", "vchera"), ("long ago", "olim"), ("last night", "noktu")),
    (("tomorrow", "manyu"), ("soon", "skoro"), ("next week", "sedmu")),
)
JOINS = (("and", "ye"), ("but", "mash"), ("because", "pork"), ("while", "dumo"))
# fmt: on
ENDINGS = ("u", "ash", "esk")
"""Verb endings of present, past and future."""

Noun = tuple[str, str, str, str]


@dataclass(frozen=True)
class Phrase:
    """A noun with what goes with it."""

    noun: Noun
    plural: bool
    definite: bool
    adjective: tuple[str, str] | None = None
    numeral: tuple[str, str] | None = None

    def english(self) -> str:
        """Say it in English."""
        words = ["the"] if self.definite else []
        words += [pair[0] for pair in (self.numeral, self.adjective) if pair]
        words.append(self.noun[1] if self.plural else self.noun[0])
        if not (self.definite or self.plural):
            words.insert(0, "an" if words[0][0] in "aeiou" else "a")
        return " ".join(words)

    def velic(self) -> str:
        """Say it in Velic: article, noun, adjective, numeral; all but the numeral agree."""
        ending = self.noun[3] + ("n" if self.plural else "")
        words = ["k" + ending] if self.definite else []
        words.append(self.noun[2] + ending)
        if self.adjective:
            words.append(self.adjective[1] + ending)
        if self.numeral:
            words.append(self.numeral[1])
        return " ".join(words)


@dataclass(frozen=True)
class Clause:
    """One subject, verb and object, with optional surroundings."""

    subject: Phrase
    verb: tuple[str, str, str, str]
    object: Phrase
    tense: int
    negative: bool = False
    where: tuple[tuple[str, str], Phrase] | None = None
    when: tuple[str, str] | None = None

    def english(self) -> str:
        """Say it in English."""
        third, base, past, _ = self.verb
        if self.tense == 2:
            verb = f"will {'not ' if self.negative else ''}{base}"
        elif self.negative:
            helper = "did" if self.tense == 1 else "do" if self.subject.plural else "does"
            verb = f"{helper} not {base}"
        else:
            verb = past if self.tense == 1 else base if self.subject.plural else third
        words = [self.subject.english(), verb, self.object.english()]
        if self.where:
            words += [self.where[0][0], self.where[1].english()]
        if self.when:
            words.append(self.when[0])
        return " ".join(words)

    def velic(self) -> str:
        """Say it in Velic: time, subject, place, object, verb."""
        words = [self.when[1]] if self.when else []
        words.append(self.subject.velic())
        if self.where:
            words += [self.where[1].velic(), self.where[0][1]]
        words.append(self.object.velic())
        words += ["ne"] if self.negative else []
        words.append(self.verb[3] + ENDINGS[self.tense] + ("m" if self.subject.plural else ""))
        return " ".join(words)


def draw_one(rng: Random, split: str) -> Document:
    """Draw one document of the split."""
    difficulty = rng.randint(1, 4)
    clauses = [_clause(rng, split, difficulty if difficulty < 4 else 2)]
    english, velic = clauses[0].english(), clauses[0].velic()
    if difficulty == 4:
        second = _clause(rng, split, 2)
        join = rng.choice(JOINS)
        english, velic = f"{english} {join[0]} {second.english()}", f"{velic}, {join[1]} {second.velic()}"
    prompt = f"english: {capital(english)}.\nvelic:"
    return make_document(NAME, split, prompt, [f"{capital(velic)}."], difficulty)


def _clause(rng: Random, split: str, level: int) -> Clause:
    """Draw a clause: 1 is bare, 2 has adjectives and numerals, 3 a place and a time too."""
    subject, verb, thing = rng.choice(PERSONS), rng.choice(VERBS), rng.choice(PERSONS + OBJECTS)
    while subject == thing or split_of(f"{subject[0]} {verb[0]} {thing[0]}") != split:
        subject, verb, thing = rng.choice(PERSONS), rng.choice(VERBS), rng.choice(PERSONS + OBJECTS)
    tense = rng.randrange(3)
    where = when = None
    if level >= 3:
        where = (rng.choice(PREPOSITIONS), _phrase(rng, rng.choice(PLACES), rng.randint(0, 1)))
    if level >= 3 or rng.random() < 0.25:
        when = rng.choice(TIMES[tense])
    negative = rng.random() < 0.2
    richness = min(level - 1, 1)
    return Clause(_phrase(rng, subject, richness), verb, _phrase(rng, thing, richness), tense, negative, where, when)


def _phrase(rng: Random, noun: Noun, richness: int) -> Phrase:
    """Draw number, article, and perhaps an adjective and a numeral."""
    plural = rng.random() < 0.5
    adjective = rng.choice(ADJECTIVES) if richness and rng.random() < 0.7 else None
    numeral = rng.choice(NUMERALS) if richness and plural and rng.random() < 0.4 else None
    return Phrase(noun, plural, rng.random() < 0.6, adjective, numeral)
