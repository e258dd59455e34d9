"""What a generation_config asks for: read, told, recorded, and refused where it cannot be done."""

import json

import pytest
import small_model
import tiny_models
import torch
import toy_task
from record_samples import FakeTask, conditions
from transformers import GenerationConfig, WatermarkingConfig

from dlbench.cli import main
from dlbench.engine import Engine, Request
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question
from dlbench.evaluation.settings import Setting
from dlbench.fit import FitProbe
from dlbench.methods.full import Full
from dlbench.models.backbone import wrap
from dlbench.models.generation_config import Wishes, wishes
from dlbench.models.loading import load
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample

HUB = {
    "qwen2.5-instruct": (
        {
            "bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
            "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0",
        },
        {"repetition_penalty": 1.05},
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
        {},
    ),
    "llama-3-instruct": (
        {
            "bos_token_id": 128000, "eos_token_id": [128001, 128009], "do_sample": True, "temperature": 0.6,
            "max_length": 4096, "top_p": 0.9, "transformers_version": "4.40.0.dev0",
        },
        {},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
        {"max_length": 4096},
    ),
    "gemma-2-it": (
        {
            "_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 107],
            "pad_token_id": 0, "transformers_version": "4.42.0.dev0",
        },
        {},
        {},
        {"cache_implementation": "hybrid"},
    ),
    "phi-3-mini-instruct": (
        {
            "_from_model_config": True, "bos_token_id": 1, "eos_token_id": [32000, 32001, 32007],
            "pad_token_id": 32000, "transformers_version": "4.39.3",
        },
        {},
        {},
        {},
    ),
    "gpt2": ({"_from_model_config": True, "bos_token_id": 50256, "eos_token_id": 50256}, {}, {}, {}),
    "whisper-like": (
        {
            "suppress_tokens": [1, 2], "begin_suppress_tokens": [220, 5], "max_length": 448,
            "return_dict_in_generate": True,
        },
        {"suppress_tokens": [1, 2], "begin_suppress_tokens": [220, 5]},
        {},
        {"max_length": 448, "return_dict_in_generate": True},
    ),
    "bart-like": (
        {"no_repeat_ngram_size": 3, "forced_eos_token_id": 2, "early_stopping": True, "length_penalty": 2.0},
        {"no_repeat_ngram_size": 3, "forced_eos_token_id": 2},
        {},
        {},
    ),
    "qwen-chat": ({"chat_format": "chatml", "max_window_size": 6144, "top_k": 0, "max_new_tokens": 512}, {}, {},
                  {"max_new_tokens": 512}),
}  # fmt: skip
"""generation_config.json as models of the hub have it, and what becomes of it: done, set aside, set aside silently."""


def asking(**fields):
    model = tiny_models.build("llama", depth=2)
    model.generation_config = GenerationConfig(**fields)
    return model


@pytest.mark.parametrize("name", HUB)
def test_what_models_of_the_hub_ask_for(tmp_path, name):
    content, done, aside, silent = HUB[name]
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    model = tiny_models.build("llama", depth=2)
    model.generation_config = GenerationConfig.from_pretrained(tmp_path)
    assert wishes(model) == Wishes(done, aside, silent)
    ends = content.get("eos_token_id", [])
    assert wrap(model).eos == set(ends if isinstance(ends, list) else [ends])
    Engine(wrap(model)).check_generation_config()


def test_lines_for_a_record_and_for_people():
    found = wishes(asking(**HUB["qwen2.5-instruct"][0]))
    assert found.line == "repetition_penalty=1.05; set aside: do_sample=true, temperature=0.7, top_k=20, top_p=0.8"
    assert found.told("mine") == (
        "mine: of its generation_config, this run does repetition_penalty=1.05 and sets aside do_sample=true, "
        "temperature=0.7, top_k=20, top_p=0.8, as decoding is greedy"
    )
    flags = wishes(asking(output_scores=True, cache_implementation="static"))
    assert flags.line == 'set aside: cache_implementation="static", output_scores=true' and flags.told("mine") == ""
    assert wishes(asking()).line == wishes(asking()).told("mine") == wishes(asking()).digest == ""
    long = wishes(asking(bad_words_ids=[[i] for i in range(60)], stop_strings=["\u202e\n"], max_time=3.0))
    assert long.line == 'bad_words_ids (60 entries), stop_strings=["\\u202e\\n"]; set aside: max_time=3.0'
    assert long.line.isprintable() and long.stops == ("\u202e\n",) and set(long.processed) == {"bad_words_ids"}


def test_values_that_change_nothing_ask_for_nothing():
    neutral = {
        "repetition_penalty": 1, "no_repeat_ngram_size": 0, "min_length": 0, "bad_words_ids": [], "suppress_tokens": [],
        "num_beams": 1, "guidance_scale": 1.0, "penalty_alpha": 0.0, "top_k": 50, "do_sample": False, "use_cache": True,
        "num_return_sequences": 1, "temperature": 0.6,
    }  # fmt: skip
    assert wishes(asking(**neutral)) == Wishes()
    assert wishes(asking(penalty_alpha=0.6, top_k=1)).refused == ""
    assert wishes(asking(cache_implementation="quantized")).aside == {"cache_implementation": "quantized"}
    assert wishes(asking(prompt_lookup_num_tokens=3)).aside == {"prompt_lookup_num_tokens": 3}


def test_a_field_that_a_later_transformers_has_is_named(monkeypatch):
    class Later(GenerationConfig):
        def __init__(self, **fields):
            self.newest = fields.pop("newest", None)
            super().__init__(**fields)

    model = asking()
    model.generation_config = Later(newest=0.5)
    assert wishes(model).aside == {"newest": 0.5}


def test_digests_tell_what_is_done_apart():
    made = [
        wishes(asking(**fields)).digest
        for fields in (
            {"repetition_penalty": 1.1},
            {"repetition_penalty": 1.2},
            {"no_repeat_ngram_size": 2},
            {"bad_words_ids": [[i] for i in range(60)]},
            {"bad_words_ids": [[i] for i in range(1, 61)]},
            {"watermarking_config": WatermarkingConfig(bias=2.0)},
            {"watermarking_config": WatermarkingConfig(bias=3.0)},
            {"stop_strings": ["a"]},
        )
    ]
    assert len(set(made)) == len(made) and "" not in made
    assert wishes(asking(repetition_penalty=1.1, do_sample=True)).digest == made[0]


def test_what_is_done_is_in_the_key_and_the_track():
    setting, plain = Setting("full", "full", Full(), None), conditions()
    keys, tracks = {plain.key(setting)}, {plain.track}
    for fields in ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.2}):
        other = conditions()
        other.backbone.model.generation_config = GenerationConfig(**fields)
        keys.add(other.key(setting))
        tracks.add(other.track)
    assert len(keys) == len(tracks) == 3 and "generation=" not in plain.track
    other.backbone.model.generation_config = GenerationConfig(do_sample=True, temperature=0.7)
    assert other.key(setting) == plain.key(setting) and other.track == plain.track  # it writes the same


def test_where_answers_are_weighed_nothing_of_it_matters():
    class Weighs(FakeTask):
        is_loglikelihood = True

    plain, other = conditions(Weighs()), conditions(Weighs())
    other.backbone.model.generation_config = GenerationConfig(num_beams=4, repetition_penalty=1.2)
    setting = Setting("full", "full", Full(), None)
    assert other.key(setting) == plain.key(setting) and other.track == plain.track
    question = Question("q", (((5, 6), (7,)), ((5, 6), (9, 3))))
    found = [weigh(Engine(where.backbone), [question])[0].answers for where in (plain, other)]
    assert found[0] == found[1]


def test_what_is_fitted_on_is_written_the_same_way():
    model = asking(no_repeat_ngram_size=1, eos_token_id=None)
    documents = toy_task.documents(tiny_models.build("llama", depth=2), 6)
    tokenizer = toy_task.Characters()
    probe = FitProbe(wrap(model, tokenizer), toy_task.Scored(), [], documents)
    for written, document in zip(probe.run(None), documents, strict=True):
        ids = torch.tensor([tokenizer(document.prompt)["input_ids"]])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        assert written.text == tokenizer.decode(out[0, ids.shape[1] :].tolist())


def test_stop_strings_end_a_text_as_in_generate(tmp_path):
    backbone = load(str(small_model.save(tmp_path / "model")))
    ids = backbone.encode("Write a summary of this text")
    settings = {"do_sample": False, "max_new_tokens": 24, "tokenizer": backbone.tokenizer}
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
    backbone.model.generation_config = GenerationConfig(eos_token_id=2)
    free = backbone.model.generate(**given, **settings)[0, len(ids) :].tolist()
    stop = backbone.tokenizer.decode(free[9:11])[-3:]
    backbone.model.generation_config = GenerationConfig(eos_token_id=2, stop_strings=["unseen", stop])
    expected = backbone.model.generate(**given, **settings)[0, len(ids) :].tolist()
    (written,) = Engine(backbone).prefill([Request("a", tuple(ids), 24)]).decode()
    assert written.tokens == expected and len(expected) < len(free)


def run(model, out, *more):
    line = f"run --model {model} --task nano_summary --method full --limit 3 --no-timing --batch-size 2 --out {out}"
    return main([*line.split(), *more])


def test_a_run_does_it_and_says_so(tmp_path, capsys):
    folder = small_model.save(tmp_path / "model")
    assert run(folder, tmp_path / "plain") == 0
    assert "generation_config" not in capsys.readouterr().err
    asked = {"eos_token_id": 2, "repetition_penalty": 1.5, "do_sample": True, "top_k": 20, "output_scores": True}
    (folder / "generation_config.json").write_text(json.dumps(asked))
    assert run(folder, tmp_path / "asked") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("this run does repetition_penalty=1.5 and sets aside do_sample=true, top_k=20, as") == 1
    (plain,), (record,) = (read_lines(tmp_path / name / "records.jsonl", Record) for name in ("plain", "asked"))
    assert "generation" not in plain.env and "generation=" not in plain.track and "generation=" in record.track
    assert record.env["generation"] == (
        "repetition_penalty=1.5; set aside: do_sample=true, top_k=20, output_scores=true"
    )
    outputs = [
        [s.output for s in read_lines(tmp_path / name / "samples" / f"{r.key}.jsonl", Sample)]
        for name, r in (("plain", plain), ("asked", record))
    ]
    assert outputs[0] != outputs[1]


def test_a_run_refuses_another_way_of_decoding_before_it_begins(tmp_path, capsys):
    folder = small_model.save(tmp_path / "model")
    for asked, said in (
        ({"num_beams": 4}, "asks for beam search (num_beams=4)"),
        ({"repetition_penalty": -1.0}, "strictly positive float"),
        ({"sequence_bias": [[[10**6], 1.0]]}, "vocabulary size"),
    ):
        (folder / "generation_config.json").write_text(json.dumps(asked))
        assert run(folder, tmp_path / "out") == 2
        err = " ".join(capsys.readouterr().err.split())
        assert said in err and "generation_config.json" in err and "Traceback" not in err
        assert not (tmp_path / "out").exists()
