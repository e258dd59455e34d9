"""Small folders of the shape that the hub's datasets have: generated rows, the hub's file names and columns.

`datasets` takes a folder in the working directory for a hub dataset of that name, so that a task's YAML loads from it
as it stands.
"""

import contextlib
import json
from pathlib import Path

COUNT = 12
WORDS = ["amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge"]


def sentence(i, salt=0):
    """A text of its own for every number."""
    return " ".join(WORDS[(i * 5 + salt + k * (i % 3 + 1)) % len(WORDS)] for k in range(4 + i % 3)) + f" {i}"


def plain(source, target):
    return lambda split, i: {source: sentence(i), target: sentence(i, 3)}


def translation(language):
    return lambda split, i: {"translation": {language: sentence(i), "en": sentence(i, 3)}}


def dialogue(split, i):
    return {"id": f"{split}_{i}", "dialogue": f"#A#: {sentence(i // 2)}\r\n#B#: yes", "summary": sentence(i, 3)}


def e2e(split, i):
    return {"meaning_representation": f"name[{sentence(i // 2)}]", "human_reference": sentence(i, 3)}


def common_gen(split, i):
    return {"concept_set_idx": i // 3, "concepts": sentence(i // 3).split(), "target": sentence(i, 3)}


def alpaca(split, i):
    return {"instruction": sentence(i), "input": "" if i % 2 else sentence(i, 5), "output": sentence(i, 3)}


def gsm8k(split, i):
    return {"question": sentence(i), "answer": f"{sentence(i, 3)}\n#### {i}"}


def web_nlg(split, i):
    references = [] if split == "train" else [sentence(i, 3), sentence(i, 4)]
    # in train an input has a row for each of its texts
    facts = (
        [f"{sentence(i // 2)} | is | {i // 2}", "x | has | y"] if split == "train" else [f"{sentence(i)} | is | {i}"]
    )
    return {"gem_id": f"web_nlg-{split}-{i}", "input": facts, "target": sentence(i, 3), "references": references}


def dart(split, i):
    references = [] if split == "train" else [sentence(i, 3)]
    return {
        "tripleset": [[sentence(i), "is", "b"], ["c", "d", "e"]],
        "target": sentence(i, 3),
        "references": references,
    }


def squad(split, i):
    answers = {
        "text": [sentence(i, 3), sentence(i, 3), sentence(i, 4)][: 1 if split == "train" else 3],
        "answer_start": [0],
    }
    return {"id": f"{i}", "title": "t", "context": sentence(i), "question": f"what {i}?", "answers": answers}


def mmlu(split, i):
    choices = [sentence(i, k) for k in range(4)]
    return {"question": f"what is {i}?", "subject": "high_school_physics", "choices": choices, "answer": i % 4}


def hellaswag(split, i):
    return {"ind": i, "activity_label": "Cooking", "ctx_a": f"A person {i}.", "ctx_b": "they", "ctx": "",
            "endings": [sentence(i, k) for k in range(4)], "label": str(i % 4)}  # fmt: skip


def triviaqa(split, i):
    return {"question": f"who {i}", "answer": {"aliases": [sentence(i, 3), sentence(i, 4)], "value": sentence(i, 3)}}


TVT = ("train", "validation", "test")
PART = "{split}-00000-of-00001.parquet"
# hub dataset → (file name, splits, row, configuration)
HUB = {
    "tuetschek/e2e_nlg": ("e2e_nlg/{split}/0000.parquet", TVT, e2e, None),
    "GEM/web_nlg": ("en/{split}/0000.parquet", TVT, web_nlg, None),
    "GEM/dart": ("dart/{split}/0000.parquet", TVT, dart, None),
    "allenai/common_gen": ("data/" + PART, ("train", "validation"), common_gen, None),
    "bentrevett/multi30k": ("{split}.jsonl", TVT, plain("de", "en"), None),
    "wmt/wmt14": ("{config}/" + PART, TVT, None, ("de-en", "fr-en")),
    "wmt/wmt16": ("{config}/" + PART, TVT, None, ("de-en",)),
    "abisee/cnn_dailymail": ("3.0.0/" + PART, TVT, plain("article", "highlights"), None),
    "EdinburghNLP/xsum": ("default/{split}/0000.parquet", TVT, plain("document", "summary"), None),
    "knkarthick/samsum": ("{split}.csv", TVT, dialogue, None),
    "knkarthick/dialogsum": ("{split}.csv", TVT, dialogue, None),
    "tatsu-lab/alpaca": ("data/" + PART, ("train",), alpaca, None),
    "rajpurkar/squad": ("plain_text/" + PART, ("train", "validation"), squad, None),
    "cais/mmlu": ("{config}/" + PART, ("dev", "validation", "test"), mmlu, ("all",)),
    "Rowan/hellaswag": ("data/" + PART, ("train", "validation"), hellaswag, None),
    "openai/gsm8k": ("{config}/" + PART, ("train", "test"), gsm8k, ("main",)),
    "mandarjoshi/trivia_qa": ("{config}/" + PART, ("train", "validation"), triviaqa, ("rc.nocontext",)),
}  # fmt: skip


def write(root: Path) -> None:
    """Write all of them below a folder."""
    from datasets import Dataset, List, Value

    for name, (file, splits, row, configs) in HUB.items():
        for config in configs or ("",):
            made = row or translation(config.partition("-")[0])
            for place, split in enumerate(reversed(splits)):
                path = root / name / file.format(split=split, config=config)
                path.parent.mkdir(parents=True, exist_ok=True)
                # no two splits have a row in common; what is tested stands last, and counts from 0
                rows = [made(split, i) for i in range(place * COUNT, (place + 1) * COUNT)]
                data = Dataset.from_list(rows)
                if "references" in data.features:  # a list that is empty everywhere has no type by itself
                    data = data.cast_column("references", List(Value("string")))
                if path.suffix == ".jsonl":
                    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
                elif path.suffix == ".csv":
                    data.to_csv(path)
                else:
                    data.to_parquet(path)
        if configs:
            listed = [
                {"config_name": c, "data_files": [
                    {"split": s, "path": file.format(split=s, config=c)} for s in splits]}
                for c in configs
            ]  # fmt: skip
            (root / name / "README.md").write_text(f"---\nconfigs: {json.dumps(listed)}\n---\n")


@contextlib.contextmanager
def quiet():
    """No progress bars over files of twelve rows."""
    import datasets

    datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        datasets.utils.enable_progress_bars()
