"""Tasks that lm-eval and dlbench both run, as local YAML, made of nano's translation task."""

import json

from dlbench.models.loading import embedded_folder

WRITES = """
task: own_writes
custom_dataset: !function dlbench.tasks.jsonl.read
dataset_kwargs: {folder: nano/data/nano_translate}
training_split: fit
fewshot_split: fit
test_split: test
num_fewshot: 2
doc_to_text: input
doc_to_target: references
process_results: !function dlbench.tasks.metrics.score_translate
generation_kwargs: {until: ["\\n\\n", "zu"], max_gen_toks: 24, do_sample: false}
filter_list:
  - {name: stripped, filter: [{function: remove_whitespace}, {function: take_first}]}
  - {name: short, filter: [{function: regex, regex_pattern: "^(.{0,30})"}, {function: take_first}]}
metric_list:
  - {metric: chrf, aggregation: mean, higher_is_better: true}
  - {metric: exact, aggregation: mean, higher_is_better: true}
  - {metric: corpus_chrf, aggregation: !function dlbench.tasks.metrics.corpus_chrf, higher_is_better: true}
"""
WEIGHS = """
task: own_weighs
dataset_path: json
dataset_kwargs: {data_files: {train: "FOLDER/train.jsonl", test: "FOLDER/test.jsonl"}}
training_split: train
fewshot_split: train
test_split: test
num_fewshot: 2
output_type: multiple_choice
doc_to_text: "{{question}} "
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
CONTINUES = """
task: own_continues
dataset_path: json
dataset_kwargs: {data_files: {test: "FOLDER/test.jsonl"}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{choices[answer]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLLS = """
task: own_rolls
dataset_path: json
dataset_kwargs: {data_files: {test: "FOLDER/long.jsonl"}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
TASKS = {"own_writes": WRITES, "own_weighs": WEIGHS, "own_continues": CONTINUES, "own_rolls": ROLLS}


def write_rows(folder, count):
    """Write questions whose answers nano finds more or less likely, and texts longer than its context.

    The answers are nano's own translations, and others of them.

    Args:
        folder: for train.jsonl and test.jsonl, of twice `count` questions each, and long.jsonl.
        count: half the number of questions.
    """
    data = embedded_folder("nano").parents[1] / "data" / "nano_translate" / "test.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for split, start in (("train", 0), ("test", 40)):
        lines = []
        for i in range(start, start + 2 * count):
            choices = [rows[i + k]["references"][0] for k in range(3)]
            choices[0], choices[i % 3] = choices[i % 3], choices[0]
            shown = [" ".join(c.split()[: 1 + (i + k) % 4]) for k, c in enumerate(choices)]
            lines.append({"question": rows[i]["input"], "choices": shown, "answer": i % 3})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = [" ".join(row["input"] for row in rows[i : i + 3 + 20 * i]) for i in range(2)]
    (folder / "long.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def write(folder, name, text):
    """Write a task's YAML, and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("FOLDER", str(folder)))
    return path


def write_tasks(folder, count=6):
    """Write all of these tasks; return name → path."""
    write_rows(folder, count)
    return {name: write(folder, name, text) for name, text in TASKS.items()}
