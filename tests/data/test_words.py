"""Metrics on texts that are not English: a perfect answer is perfect, and half of one is half, in every script."""

import json
import string
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU

from dlbench.data import loader
from dlbench.data.scoring import words
from dlbench.data.task_options import Sources
from dlbench.evaluation.text_stats import repetition
from dlbench.tasks import metrics

SENTENCES = {
    "Chinese": "今天天气很好，我们去公园散步。",
    "Japanese": "昨日、東京でデータの会議がありました。",
    "Korean": "어제 서울에서 회의가 열렸습니다.",
    "Thai": "วันนี้อากาศดีมาก",
    "Lao": "ສະບາຍດີຊາວໂລກ",
    "Khmer": "សួស្តីពិភពលោក",
    "Burmese": "မင်္ဂလာပါကမ္ဘာ",
    "Tibetan": "བོད་སྐད་ཡིག",
    "Arabic": "ذهب الولد إلى المدرسة.",
    "Persian": "می‌خواهم به خانه بروم",
    "Hebrew": "הילד הלך לבית הספר.",
    "Hindi": "लड़का विद्यालय गया।",
    "Tamil": "பையன் பள்ளிக்குச் சென்றான்.",
    "Russian": "Мальчик пошёл в школу.",
    "Greek": "Το αγόρι πήγε στο σχολείο.",
    "Georgian": "ბიჭი სკოლაში წავიდა.",
    "Amharic": "ልጁ ወደ ትምህርት ቤት ሄደ።",
    "German": "Der Bär fraß süße Äpfel.",
    "French": "L'élève a été reçu à l'école.",
    "Vietnamese": "Hôm nay trời đẹp quá.",
    "Turkish": "Çocuk okula gitti, öğretmen güldü.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_perfect_answer_is_perfect(language):
    sentence = SENTENCES[language]
    assert set(metrics.rouge(sentence, ["x", sentence]).values()) == {1.0}
    assert metrics.word_f1(sentence, [sentence]) == metrics.answer_exact(sentence, [sentence]) == 1
    assert metrics.sentence_bleu(sentence, [sentence]) == metrics.sentence_chrf(sentence, [sentence]) == 1
    assert metrics.rouge(sentence, ["etwas anderes"])["rougeL"] == 0 == metrics.word_f1(sentence, ["anderes"])


@pytest.mark.parametrize(
    ("output", "reference", "common", "lengths"),
    [
        ("今天天气好", "今天天气很好", 5, (5, 6)),  # a character each
        ("東京でデータ", "東京のデータ", 5, (6, 6)),  # the long vowel's mark is one
        ("อากาศดี", "อากาศ", 5, (6, 5)),  # letters with their marks: ดี is one
        ("मुझे जाना है", "उसे जाना है", 2, (3, 3)),  # whole words, vowel signs and all
        ("Она пошла домой", "она ПОШЛА в школу", 2, (3, 4)),
        ("die süßen Äpfel", "Die süßen Birnen", 2, (3, 3)),
        ("l'été dernier", "l’été dernier", 3, (3, 3)),  # one apostrophe or the other
        ("GPT-4在2024年", "GPT-4 于2024年", 4, (5, 5)),  # gpt 4 在 2024 年
    ],
)
def test_rouge_counts_the_words_of_the_script(output, reference, common, lengths):
    found = metrics.rouge(output, [reference])
    assert found["rouge1"] == pytest.approx(2 * common / sum(lengths))
    assert found["rougeL"] == found["rouge1"]  # all of them in one order


@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_ascii_words_are_those_of_the_library(text):
    assert words.words(text) == DefaultTokenizer().tokenize(text)


@given(st.lists(st.text(string.ascii_letters + " .,'-_\n09", max_size=60), min_size=2, max_size=3))
def test_ascii_figures_are_the_library_s_to_the_bit(texts):
    output, *references = texts
    scores = RougeScorer(["rougeL", "rouge1", "rouge2"]).score_multi(references, output)
    assert metrics.rouge(output, references) == {name: score.fmeasure for name, score in scores.items()}


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_answers_are_those_of_squad(text):
    """SQuAD's script, evaluate-v1.1: lower case, then punctuation, articles and white space."""
    plain = "".join(c for c in text.lower() if c not in set(string.punctuation))
    assert metrics.words(text) == [w for w in plain.split() if w not in ("a", "an", "the")]


@given(st.text(max_size=40))
def test_a_text_equals_itself_in_other_forms(text):
    import unicodedata

    assert words.words(text) == words.words(unicodedata.normalize("NFC", text))
    assert words.words(text) == words.words(unicodedata.normalize("NFD", text))
    assert words.fold(words.fold(text)) == words.fold(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cafe\u0301", "CAFÉ"),
        ("ＡＢＣ１２３", "abc123"),  # full width
        ("ﾃﾞｰﾀ", "データ"),  # half width
        ("STRASSE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("می\u200cخواهم", "میخواهم"),
        ("co\u00adoperate", "cooperate"),
        ("ﬁnal", "final"),
        ("Nike™ ½ m²", "nike m"),  # as the library has it: signs are no letters
        ("a❤️b", "a b"),
    ],
)
def test_mere_form_does_not_count(one, other):
    assert words.words(one) == words.words(other) != []


@pytest.mark.parametrize(
    ("output", "reference", "common", "lengths"),
    [
        ("北京", "北京市", 2, (2, 3)),  # SQuAD's script would give 0
        ("「東京タワー」", "東京タワー。", 6, (6, 6)),
        ("в Москве", "Москве", 1, (2, 1)),
        ("“the” Élysée—", "élysée", 1, (1, 1)),
    ],
)
def test_short_answers_are_compared_by_the_words_of_their_script(output, reference, common, lengths):
    assert metrics.word_f1(output, [reference]) == pytest.approx(2 * common / sum(lengths))


@pytest.mark.parametrize(
    ("references", "tokenizer"),
    [
        (["今天天气很好，我们去公园散步。"], "zh"),
        (["昨日、東京でデータの会議がありました。"], "char"),
        (["วันนี้อากาศดีมาก"], "char"),
        (["Мальчик пошёл в школу."], "13a"),
        (["어제 서울에서 회의가 열렸습니다."], "13a"),
        (["The boy, 李, went to school."], "13a"),
        (["All in English, and a long one", "今天"], "13a"),
        (["..."], "13a"),
    ],
)
def test_bleu_takes_a_tokenizer_of_the_library_that_parts_the_script(references, tokenizer):
    assert metrics.bleu_tokenizer(references) == tokenizer
    output = references[0].replace("天", "人").replace("東", "西").replace("school", "bed")
    by_hand = BLEU(effective_order=True, tokenize=tokenizer).sentence_score(output, references).score
    assert metrics.sentence_bleu(output, references) == min(by_hand / 100, 1)
    corpus = BLEU(tokenize=tokenizer).corpus_score([output, output], [references[:1] * 2]).score
    assert metrics.corpus_bleu([(references[:1], output)] * 2) == min(corpus / 100, 1)
    assert f"|tok:{tokenizer}|" in metrics.signature(["bleu"], "score_translation", [references])


def test_chinese_bleu_sees_more_than_whole_clauses():
    output, reference = "今天天气很好，我们去公园跑步。", "今天天气很好，我们去公园散步。"
    assert metrics.sentence_bleu(output, [reference]) > 0.7
    assert BLEU(effective_order=True).sentence_score(output, [reference]).score < 1


def test_signatures_name_what_parts_texts():
    mixed = [["今天天气很好"], ["データの会議"], ["in English"]]
    said = metrics.signature(["rougeL", "bleu", "corpus_bleu", "f1"], "score_data2text", mixed)
    assert "ROUGE: rouge-score" in said and said.count("of any script") == 2
    assert said.count("tok:char|") == 2 and "tok:13a" not in said  # one for all
    with metrics.bleu_tokenized_by("zh"):
        assert metrics.signature(["bleu", "corpus_bleu"], "score_data2text", mixed).count("tok:zh|") == 2


def test_a_task_has_one_tokenizer_whatever_texts_are_looked_at(tmp_path):
    """Latin names among Chinese references, and a title in kana; the fifth that is fitted on is parted alike."""
    references = [f"今天第{i}号天气很好，我们去公园散步。" for i in range(17)]
    references += ["Harry Potter", "IBM Watson", "のび太"]
    path = tmp_path / "zh.jsonl"
    lines = [{"input": f"text {i}", "references": [one]} for i, one in enumerate(references)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = loader.load_task(f"file:{path}", Sources(metric="bleu"))
    documents = task.documents("test") + task.documents("fit")
    assert sorted(d.references[0] for d in documents) == sorted(references)
    by_hand = BLEU(effective_order=True, tokenize="zh")
    for document in documents:
        output = document.references[0].replace("天", "人").replace("Potter", "potter's 一")
        score = by_hand.sentence_score(output, list(document.references)).score
        assert task.score(document, output)["bleu"] == min(score / 100, 1)
    latin = [d for d in documents if d.references[0].isascii()]
    assert task.signature(latin).count("tok:zh|") == task.signature(documents).count("tok:zh|") == 2
    outputs = [d.references[0] + "，一 二" for d in latin]
    corpus = BLEU(tokenize="zh").corpus_score(outputs, [[d.references[0] for d in latin]]).score
    assert task.corpora(latin, outputs)["corpus_bleu"] == corpus / 100


@pytest.mark.parametrize("reference", ["42", "the red house", "北京市", "Élysée"])
def test_a_space_of_no_width_is_white_space(reference):
    for output in (f"\u200b{reference}\u200b", f"{reference}\u200b", f"\u200b \u200b{reference}"):
        assert metrics.word_f1(output, [reference]) == metrics.answer_exact(output, [reference]) == 1
        assert metrics.exact_match(output, [reference]) == metrics.rouge(output, [reference])["rougeL"] == 1
    parted = reference.replace(" ", "\u200b")
    assert metrics.word_f1(parted, [reference]) == metrics.exact_match(parted, [reference]) == 1
    assert metrics.words("red\u200bhouse") == words.words("red\u200bhouse") == ["red", "house"]
    assert metrics.answer("answer:\u200b42") == 42


def test_signs_alone_are_matched_by_themselves():
    for reference in ("→", "？！", "≈ ∞", "👍", "⟶⟶"):
        assert set(metrics.rouge(f" {reference}\n", ["a word", reference]).values()) == {1}
        assert set(metrics.rouge("a", [reference]).values()) == {0}
        assert set(metrics.rouge("?", [reference]).values()) == {0}
    assert set(metrics.rouge("...", ["..."]).values()) == {0}  # rouge-score's own; the check before a run names it


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so: answer: １２", 12),
        ("Answer：１，２５０．５", Decimal("1250.5")),
        ("answer: −7", -7),
        ("answer: ٣٤", 34),
        ("answer: १२", 12),
        ("answer: ١٬٢٥٠٫٥", Decimal("1250.5")),
        ("answer: 3½", 3),
        ("answer: ½", None),
    ],
)
def test_answers_are_numbers_in_any_digits(text, number):
    assert metrics.answer(text) == number


def test_repetition_is_seen_where_no_spaces_part_words():
    assert repetition("好天气好天气好天气") == pytest.approx(1 - 3 / 6)  # six 4-grams, three of them new
    assert repetition("ดีมากดีมากดีมาก") > 0.3
    text = "one two three four one two three four five"
    grams = Counter(tuple(text.split()[i : i + 4]) for i in range(6))
    assert repetition(text) == 1 - len(grams) / 6
