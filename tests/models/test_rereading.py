"""A run says which texts were read again where their rotary angles changed, and writes what `generate` writes."""

import json

import one_by_one
import pytest
import torch
from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

from dlbench.cli import main
from dlbench.models.loading import embedded_folder, load
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample

ORIGINAL, NEW = 24, 6
LENGTHS = [6, ORIGINAL - NEW + 1, ORIGINAL - NEW + 2, ORIGINAL, ORIGINAL + 1, 40]
"""Of prompts; the third and the fourth outgrow the original context."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Phi-3 that never ends a text, and a file of prompts of these lengths."""
    torch.manual_seed(0)
    here = tmp_path_factory.mktemp("phi")
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder("nano"))
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        original_max_position_embeddings=ORIGINAL,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.3, 1.6],
            "long_factor": [1.5, 4.0, 9.0, 20.0],
        },
        initializer_range=0.4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    Phi3ForCausalLM(config).save_pretrained(here)
    tokenizer.save_pretrained(here)
    lines = []
    for number, length in enumerate(LENGTHS):
        words = f"{number}" + " a" * length
        while len(tokenizer(words)["input_ids"]) > length:
            words = words[:-1].rstrip()
        assert len(tokenizer(words)["input_ids"]) == length
        lines.append(json.dumps({"id": str(number), "input": words, "references": ["a b"]}) + "\n")
    for split in ("train", "test"):
        (here / f"{split}.jsonl").write_text("".join(lines) if split == "test" else lines[0].replace("a", "b"))
    return here


def test_a_run_on_phi_3(folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        "--task",
        f"file:{folder}",
        "--max-new-tokens",
        str(NEW),
        "--budget",
        "0.5",
        "--no-timing",
        "--processes",
        "1",
    ]
    methods = ["--method", "full", "--method", "random_skip"]
    assert main(["run", "--model", str(folder), *arguments, *methods, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 6 texts may outgrow the original context of 24 tokens; those that do are read again there" in said
    backbone = load(str(folder))
    for record in read_lines(out / "records.jsonl", Record):
        samples = {s.id: s for s in read_lines(out / "samples" / f"{record.key}.jsonl", Sample)}
        texts = [samples[str(i)] for i in range(len(LENGTHS))]
        assert [s.tokens.prompt for s in texts] == LENGTHS and {s.tokens.generated for s in texts} == {NEW}
        assert [s.reread for s in texts] == [False, False, True, True, False, False]
        assert "2 of 6 texts outgrew the original context and were read again, as by generate" in record.notes
        if record.method.name == "full":
            assert record.compute.flop_share_decode == record.compute.flop_share_total == 1
            lines = [json.loads(line)["input"] for line in (folder / "test.jsonl").read_text().splitlines()]
            for sample, text in zip(texts, lines, strict=True):
                tokens = one_by_one.generate(backbone, backbone.encode(text), NEW)
                assert sample.output == backbone.tokenizer.decode(tokens, skip_special_tokens=True)
