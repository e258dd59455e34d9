"""Loading: nobody's code without leave, layers that wait on disk, chat templates."""

import json
import shutil

import checkpoints
import pytest
import small_model
import tiny_models
import torch
import transformers

from dlbench.cli import main
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.checkpoint.hashes import fingerprint
from dlbench.models.loading import load
from dlbench.prompting.chat_template import choose
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


def copy(small, to, **config):
    shutil.copytree(small, to)
    content = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**content, **config}))
    return to


@pytest.mark.parametrize(("name", "tiny"), [("Qwen3_5", "qwen3_5"), ("Qwen3_5Moe", "qwen3_5_moe")])
def test_the_language_model_of_a_checkpoint_with_vision_runs(name, tiny, tmp_path):
    """As Qwen3.5 is published; transformers gives its language model alone, which is of a type of its own."""
    torch.manual_seed(0)
    text = {"vocab_size": 1024, "num_hidden_layers": 5, "num_attention_heads": 4, **tiny_models._HYBRIDS[tiny][1]}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
    whole = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    tiny_models._perturb(whole, 0)
    backbone = load(str(checkpoints.save(whole, tmp_path / "m")))
    assert (backbone.kind, backbone.family.recurrent) == (f"{tiny}_text", "linear_attn")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(backbone.model(ids).logits, whole(ids).logits)
    (written,) = Engine(backbone).prefill([Request("a", (5, 6, 7, 8), 6)]).decode()
    expected = backbone.model.generate(ids, max_new_tokens=6, do_sample=False)[0, 4:].tolist()
    assert written.tokens == expected[: len(written.tokens)]


def test_code_that_comes_with_a_model_is_refused_unless_trusted(small, tmp_path):
    folder = copy(small, tmp_path / "own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\n\n\nclass Own(LlamaForCausalLM):\n    trusted = True\n"
    )
    with pytest.raises(
        DlbenchError, match=r"brings code of its own \(modeling_own\.Own\): read it, and if you trust it"
    ):
        load(str(folder))
    trusted = load(str(folder), trust_remote_code=True)
    assert type(trusted.model).trusted
    # what runs is part of what the model is
    assert trusted.sha256 == fingerprint(folder, code=True) != fingerprint(folder)
    (folder / "modeling_own.py").write_text("changed")
    assert fingerprint(folder, code=True) != trusted.sha256


def test_a_revision_of_a_hub_model_comes_from_the_cache(small, tmp_path, monkeypatch):
    """Two revisions of one name, as the hub's cache keeps them."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    root = cache / "models--org--small"
    revisions = ["a" * 40, "b" * 40]
    copy(small, root / "snapshots" / revisions[0])
    copy(small, root / "snapshots" / revisions[1], rms_norm_eps=1e-3)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revisions[0])
    first, main_, second = (load(f"org/small{at}") for at in (f"@{revisions[0]}", "", f"@{revisions[1]}"))
    assert first.sha256 == main_.sha256 != second.sha256
    assert [b.model.config.rms_norm_eps for b in (main_, second)] == [1e-6, 1e-3]
    assert second.name == f"org/small@{revisions[1]}"
    with pytest.raises(DlbenchError, match=r"cannot load model 'org/small@v9'.*needs a network or a filled cache"):
        load("org/small@v9")


@pytest.fixture(scope="module")
def spread(small, tmp_path_factory):
    """The same model with every second layer on disk."""
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
    path = tmp_path_factory.mktemp("maps") / "map.json"
    path.write_text(json.dumps(places))
    return path


@pytest.mark.parametrize("method", [None, StaticSkip(only=(1, 2)), RandomSkip(share=0.5)])
def test_layers_that_wait_on_disk_give_the_same(small, spread, method):
    whole, apart = load(str(small)), load(str(small), device_map=str(spread))
    assert apart.spread and not whole.spread and apart.sha256 == whole.sha256
    requests = [Request(str(i), tuple(range(3, 8 + 4 * i)), 6) for i in range(3)]
    found = [Engine(b, kernels="stock").prefill(requests).decode(method, seed=1) for b in (whole, apart)]
    assert [g.tokens for g in found[0]] == [g.tokens for g in found[1]]
    assert [g.flops for g in found[0]] == [g.flops for g in found[1]]
    hooked = [layer for layer in apart.layers if hasattr(layer, "_hf_hook")]
    assert hooked and all("forward" in vars(layer) for layer in hooked), "accelerate's hooks are put back"


def test_a_run_takes_a_device_map(small, spread, tmp_path):
    line = f"run --model {small} --task nano_summary --limit 2 --method static_skip --budget 0.5 --max-new-tokens 4"
    assert main([*line.split(), "--device-map", str(spread), "--out", str(tmp_path / "a")]) == 0
    assert main([*line.split(), "--no-timing", "--out", str(tmp_path / "b")]) == 0
    a, b = (list(read_lines(tmp_path / out / "records.jsonl", Record)) for out in "ab")
    assert [r.quality for r in a] == [r.quality for r in b]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device-map nowhere.json", "no file nowhere.json for --device-map"),
        ("--device-map autos", "unknown device map 'autos': did you mean auto"),
        ("--device-map auto --dtype int8", "int8 keeps all layers on one device"),
        ("--chat-template sometimes", "unknown chat template policy 'sometimes'"),
        ("--chat-template on", "model 'small' has no chat template"),
    ],
)
def test_what_cannot_be_loaded_as_asked_is_one_line(small, tmp_path, capsys, options, message):
    line = ["run", "--model", str(small), "--task", "nano_summary", "--method", "full", "--out", str(tmp_path / "out")]
    assert main([*line, "--processes", "1", *options.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("dlbench: ") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("policy", "wanted", "applied"),
    [("auto", True, True), ("auto", False, False), ("on", False, True), ("off", True, False)],
)
def test_a_chat_template_is_applied_where_the_task_or_the_user_says_so(policy, wanted, applied):
    class Tokenizer:
        chat_template = CHAT

    assert (choose("m", Tokenizer(), wanted, policy) is not None) == applied
    Tokenizer.chat_template = None
    if policy != "on":
        assert choose("m", Tokenizer(), wanted, policy) is None


def test_a_run_with_a_chat_template_says_so_and_begins_texts_once(tmp_path):
    """The template brings a begin-of-text of its own, and so does the tokenizer."""
    folder = small_model.save(tmp_path / "chat", chat=CHAT)
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"input": f"say {i}", "references": ["x"]}) + "\n" for i in range(10)))
    found = {}
    for policy in ("auto", "off"):
        line = f"run --model {folder} --task file:{path} --method full --no-timing --limit 3 --max-new-tokens 4"
        assert main([*line.split(), "--chat-template", policy, "--out", str(tmp_path / policy)]) == 0
        (found[policy],) = read_lines(tmp_path / policy / "records.jsonl", Record)
    assert found["auto"].task.chat_template and not found["off"].task.chat_template
    assert found["auto"].task.with_bos == found["off"].task.with_bos == 3
    assert found["auto"].track != found["off"].track and found["auto"].key != found["off"].key
    assert found["auto"].compute and found["off"].compute
    # "[user] say 0 [assistant]" is longer than "say 0"
    assert found["auto"].compute.tokens.prompt > found["off"].compute.tokens.prompt + 3 * 5
