import re

import pytest

from dlbench.tasks.nano import data2text, summary, translation
from dlbench.tasks.nano.documents import SPLITS, split_of
from dlbench.tasks.nano.generate import COMMITTED, TASKS, committed, draw, read, write

SIGNS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_decides_the_documents(task):
    assert draw(task, "train", 30, 5) == draw(task, "train", 30, 5)
    assert draw(task, "train", 30, 5) == draw(task, "train", 60, 5)[:30]
    assert draw(task, "train", 30, 5) != draw(task, "train", 30, 6)


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_neither_ids_nor_inputs(task):
    drawn = {split: [d for seed in range(3) for d in draw(task, split, 400, seed)] for split in SPLITS}
    for field in ("id", "input"):
        train, fit, test = ({getattr(document, field) for document in drawn[split]} for split in SPLITS)
        assert not train & fit and not train & test and not fit & test


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", COMMITTED)
def test_committed_documents_are_what_the_generator_draws(task, split):
    n, seed = COMMITTED[split]
    assert committed(task, split) == draw(task, split, n, seed)
    assert {document.difficulty for document in committed(task, split)} == {1, 2, 3, 4}


def test_documents_survive_the_file(tmp_path):
    documents = draw("nano_summary", "test", 5, 1)
    write(documents, tmp_path / "deep" / "five.jsonl")
    assert read(tmp_path / "deep" / "five.jsonl") == documents


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown nano task 'nano_maths'; choose from"):
        draw("nano_maths", "test", 1, 0)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        draw("nano_math", "dev", 1, 0)


def test_written_steps_are_right_and_use_the_numbers_told():
    for document in draw("nano_math", "test", 300, 3):
        (solution,) = document.references
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", solution)
        known = {int(number) for number in re.findall(r"\d+", document.input)}
        for left, sign, right, result in steps:
            a, b, c = int(left), int(right), int(result)
            assert (a == b * c) if sign == "/" else (SIGNS[sign](a, b) == c)
            assert {a, b} <= known and 0 <= c <= 99
            known.add(c)
        assert len(steps) == document.difficulty
        assert solution.endswith(f". answer: {steps[-1][3]}")


def test_math_chains_of_numbers_are_held_out():
    for split in SPLITS:
        for document in draw("nano_math", split, 100, 4):
            assert split_of(document.references[0].split(". answer")[0].replace(". ", ";")) == split


def test_every_reference_states_every_fact():
    for document in draw("nano_data2text", "test", 300, 3):
        values = re.findall(r"= ([^|\n]+?)(?: \||\n)", document.input)
        assert 2 <= len(document.references) <= 4
        for reference in document.references:
            assert all(value in reference for value in values), (values, reference)
            assert reference.endswith(".") and "  " not in reference


def test_name_and_kind_pairs_are_held_out():
    for document in draw("nano_data2text", "test", 100, 4):
        name, kind = re.match(r"data: name = (.+?) \| kind = (.+?) \|", document.input).groups()
        assert split_of(f"{name}|{kind}") == "test"
    assert len({kind for domain in data2text.DOMAINS for kind in domain.kinds}) > 40


def test_summaries_state_what_was_said_last():
    days = "|".join(summary.DAYS)
    seen = 0
    for document in draw("nano_summary", "test", 300, 3):
        assert len(document.references) == 3
        said = re.findall(days, document.input)
        if "borrow" in document.input or "lend" in document.input:
            continue  # two days, and a correction may touch either
        seen += 1
        for reference in document.references:
            assert re.findall(days, reference) == said[-1:]
    assert seen > 200


def _velic_forms():
    nouns = {}
    for singular, _, stem, vowel in translation.PERSONS + translation.OBJECTS + translation.PLACES:
        nouns[stem + vowel] = nouns[stem + vowel + "n"] = singular
    adjectives = {stem + vowel + n: word for word, stem in translation.ADJECTIVES for vowel in "aoi" for n in ("", "n")}
    verbs = {
        stem + e + m: base for _, base, _, stem in translation.VERBS for e in translation.ENDINGS for m in ("", "m")
    }
    others = {
        velic: word
        for pairs in (translation.NUMERALS, translation.PREPOSITIONS, *translation.TIMES)
        for word, velic in pairs
    }
    return nouns, adjectives, verbs, others | {velic: word for word, velic in translation.JOINS}


def test_velic_words_are_unambiguous():
    nouns, adjectives, verbs, others = _velic_forms()
    everything = [*nouns, *adjectives, *verbs, *others, "ne", *(f"k{v}{n}" for v in "aoi" for n in ("", "n"))]
    assert len(everything) == len(set(everything))
    count = len(translation.PERSONS + translation.OBJECTS + translation.PLACES)
    assert len(nouns) == 2 * count and len(verbs) == 6 * len(translation.VERBS)


def test_velic_agrees_and_can_be_read_back():
    nouns, adjectives, verbs, others = _velic_forms()
    english_nouns = {f: n[0] for n in translation.PERSONS + translation.OBJECTS + translation.PLACES for f in n[:2]}
    english_verbs = {form: verb[1] for verb in translation.VERBS for form in verb[:3]}
    for document in draw("nano_translate", "test", 300, 3):
        words = re.findall(r"[a-z]+", document.references[0].lower())
        meant, clause, ending, article = [], [], "", None
        for word in words:
            if re.fullmatch(r"k[aoi]n?", word):
                article = word[1:]
            elif word in nouns:
                ending = re.search(r"[aoi]n?$", word)[0]
                assert article in (None, ending)
                article = None
                meant.append(nouns[word])
                clause.append(ending)
            elif word in adjectives:
                assert word.endswith(ending) and word[-len(ending) - 1] not in "aoi"
                meant.append(adjectives[word])
            elif word in verbs:
                assert word.endswith("m") == clause[0].endswith("n")
                clause = []
                meant.append(verbs[word])
            else:
                meant.extend([] if word == "ne" else others[word].split())
        source = re.findall(r"[a-z]+", document.input.removeprefix("english: ").removesuffix("\nvelic:").lower())
        assert ("not" in source) == ("ne" in words)
        function_words = {"the", "a", "an", "will", "not", "do", "does", "did"}
        content = [english_nouns.get(w) or english_verbs.get(w) or w for w in source if w not in function_words]
        assert sorted(meant) == sorted(content)
