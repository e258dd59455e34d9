"""PEFT adapters: merged into their base when they are loaded, or one line that says why not."""

import json
import shutil
import sys
import warnings

import gguf_files
import pytest
import small_model
import torch
from checkpoints import copy
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlbench.cli import main
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.models.loading import embedded_folder, load
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record

# peft reads an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "base")


def adapt(base, folder, **options):
    """Save an adapter of a model folder whose weights are all random."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(base)
    options = {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "down_proj"],
        "init_lora_weights": False,
        **options,
    }
    torch.manual_seed(1)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return adapt(base, tmp_path_factory.mktemp("models") / "adapter")


def settings(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def merged(base, adapter, dtype=torch.float32):
    from peft import PeftModel

    return PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter
    ).merge_and_unload()


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_logits_are_those_of_the_merged_model(options, dtype, base, tmp_path):
    adapter = adapt(base, tmp_path / "a", **options)
    ours = load(str(adapter), dtype=dtype)
    theirs = logits(merged(base, adapter, getattr(torch, dtype)))
    assert torch.equal(logits(ours.model), theirs)
    assert not torch.equal(theirs, logits(load(str(base), dtype=dtype).model))
    assert (ours.adapter_of, ours.quantization, ours.depth) == ("base", None, 4)


def test_fused_layers_run_the_merged_weights(adapter):
    backbone = load(str(adapter))
    assert Engine(backbone).kernels == "fused" and type(backbone.layers[0].self_attn.q_proj) is torch.nn.Linear


def test_its_hash_is_that_of_its_weights_settings_and_base(base, adapter, tmp_path):
    first = load(str(adapter))
    assert first.sha256 == first.base_sha256 != load(str(base)).sha256
    moved = shutil.copytree(adapter, tmp_path / "moved")
    assert load(str(moved)).sha256 == first.sha256
    elsewhere = settings(moved, base_model_name_or_path=str(shutil.copytree(base, tmp_path / "other")))
    assert load(str(elsewhere)).sha256 == first.sha256
    scaled = load(str(settings(moved, lora_alpha=32)))
    assert scaled.sha256 != first.sha256 and scaled.weights_sha256 != first.weights_sha256


def test_a_base_is_found_beside_it(base, adapter, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    moved = settings(shutil.copytree(adapter, tmp_path / "a"), base_model_name_or_path="../base")
    assert torch.equal(logits(load(str(moved)).model), logits(load(str(adapter)).model))


def test_a_base_may_be_a_gguf_file(base, tmp_path):
    file = gguf_files.save(tmp_path / "m.gguf", kind="Q8_0")
    load(str(file)).model.save_pretrained(tmp_path / "plain")
    adapter = settings(adapt(tmp_path / "plain", tmp_path / "a"), base_model_name_or_path="../m.gguf")
    ours = load(str(adapter))
    assert (ours.adapter_of, ours.quantization) == ("m.gguf", "gguf Q8_0")
    assert torch.equal(logits(ours.model), logits(merged(tmp_path / "plain", adapter)))


def test_its_own_tokenizer_goes_first(base, adapter, tmp_path):
    own = shutil.copytree(adapter, tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ 'own' }}"
    tokenizer.save_pretrained(own)
    assert load(str(own)).tokenizer.chat_template == "{{ 'own' }}"
    assert load(str(adapter)).tokenizer.chat_template is None


def lose(folder):
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, {"format": "pt"})


def add(folder):
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({**weights, name.replace("layers.0", "layers.9"): weights[name].clone()}, path, {"format": "pt"})


def infinite(folder):
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    weights[sorted(weights)[0]][0, 0] = float("inf")
    save_file(weights, path, {"format": "pt"})


def cut(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


class Bag(dict):
    """A dictionary that only its own code can build."""


def pickled(folder):
    path = folder / "adapter_model.safetensors"
    torch.save(Bag(load_file(path)), folder / "adapter_model.bin")
    path.unlink()


def extended(folder, head=True):
    """Add embeddings of six tokens more than the base has, as peft saves them, and return those of the head."""
    path = folder / "adapter_model.safetensors"
    rows = torch.randn(1030, 32, generator=torch.Generator().manual_seed(0))
    both = {"model.embed_tokens": rows, **({"lm_head": rows.flip(0)} if head else {})}
    more = {f"base_model.model.{name}.weight": weight.contiguous() for name, weight in both.items()}
    save_file({**load_file(path), **more}, path, {"format": "pt"})
    return rows.flip(0)


def test_tokens_that_an_adapter_adds_have_their_embeddings(base, adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "a")
    head = extended(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<new{number}>" for number in range(6)])
    tokenizer.save_pretrained(folder)
    ours = load(str(folder))
    assert ours.vocabulary == 1030 and len(ours.tokenizer) == 1030
    assert torch.equal(ours.model.lm_head.weight, head)
    assert torch.equal(ours.model.get_input_embeddings().weight, head.flip(0))
    (written,) = Engine(ours).prefill([Request("a", (5, 1028, 7), 4)]).decode()
    ids = torch.tensor([[5, 1028, 7]])
    assert written.tokens == ours.model.generate(ids, max_new_tokens=4, do_sample=False)[0, 3:].tolist()


def test_pickled_code_of_an_adapter_runs_for_those_who_trust_it(adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "a")
    pickled(folder)
    trusted = load(str(folder), trust_remote_code=True)
    assert torch.equal(logits(trusted.model), logits(load(str(adapter)).model))


FAULTS = {
    "no base named": (lambda a: settings(a, base_model_name_or_path=None), "does not name the adapter's base"),
    "a base that is gone": (
        lambda a: settings(a, base_model_name_or_path="/no/such/base"),
        "is an adapter of /no/such/base, which is not there: put the base's place into",
    ),
    "a base beside it that is gone": (
        lambda a: settings(a, base_model_name_or_path="../nothing"),
        r"is an adapter of \.\./nothing, which is not there: put the base's place into .*adapter_config\.json",
    ),
    "a base at home that is gone": (
        lambda a: settings(a, base_model_name_or_path="~/nothing"),
        "is an adapter of ~/nothing, which is not there: put the base's place into .*adapter_config.json",
    ),
    "a base that is on no hub": (
        lambda a: settings(a, base_model_name_or_path="org/none"),
        "is an adapter of org/none, which is no folder here, and .*: put the base's place into .*adapter_config.json",
    ),
    "pickled code": (
        pickled,
        r"^cannot load model '[^']*': adapter_model\.bin holds more than tensors, and pickled .* --trust-remote-code$",
    ),
    "embeddings without a head": (
        lambda a: extended(a, head=False),
        r"is an adapter with 1030 token embeddings for the 1024 of its base, and without the rows of the head",
    ),
    "a weight that is missing": (lose, "does not fit its base .*: 1 weights are missing and 0 have no place"),
    "a weight too many": (add, "does not fit its base .*: 0 weights are missing and 1 have no place"),
    "weights that are no numbers": (infinite, "holds weights that are not finite"),
    "cut off": (cut, r"adapter_model\.safetensors is cut off"),
    "no weights": (lambda a: (a / "adapter_model.safetensors").unlink(), "holds no weights of the adapter"),
    "no settings": (lambda a: (a / "adapter_config.json").unlink(), "its adapter_config.json is not there"),
    "settings that are no JSON": (lambda a: (a / "adapter_config.json").write_text("{"), "_config.json is not JSON"),
    "another rank": (lambda a: settings(a, r=2), "is an adapter that cannot be merged into .*size mismatch"),
    "a kind of tomorrow": (lambda a: settings(a, peft_type="TOMORROW"), "is an adapter that cannot be merged into"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_an_adapter_that_cannot_be_merged_says_why(name, adapter, tmp_path):
    change, message = FAULTS[name]
    folder = shutil.copytree(adapter, tmp_path / "a")
    change(folder)
    with pytest.raises(DlbenchError, match=message) as refused:
        load(str(folder))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 900


def test_an_adapter_of_another_model_is_refused(adapter, tmp_path):
    wider = tmp_path / "wider"
    gguf_files.model().save_pretrained(wider)
    AutoTokenizer.from_pretrained(embedded_folder("nano")).save_pretrained(wider)
    moved = settings(shutil.copytree(adapter, tmp_path / "a"), base_model_name_or_path=str(wider))
    with pytest.raises(DlbenchError, match=r"cannot be merged into .*wider: .*size mismatch"):
        load(str(moved))


def test_an_adapter_of_an_adapter_is_refused(adapter, tmp_path):
    second = settings(shutil.copytree(adapter, tmp_path / "a"), base_model_name_or_path=str(adapter))
    with pytest.raises(DlbenchError, match="is an adapter of an adapter"):
        load(str(second))


def test_layers_on_several_devices_are_refused(adapter):
    with pytest.raises(DlbenchError, match="is an adapter, which --device-map does not go with"):
        load(str(adapter), device_map="auto")


def test_without_the_package_one_line_says_what_to_install(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DlbenchError, match=r"needs the package peft: pip install 'dlbench\[peft\]'"):
        load(str(adapter))


@pytest.mark.parametrize("left", ["adapter_config.json", "adapter_model.safetensors", "both"])
def test_an_adapter_beside_weights_is_not_passed_over(left, base, adapter, tmp_path):
    folder = copy(base, tmp_path / "m")
    for file in adapter.glob("adapter_*"):
        if left in (file.name, "both"):
            shutil.copy(file, folder)
    with pytest.raises(DlbenchError, match="holds a PEFT adapter beside its weights"):
        load(str(folder))


def test_an_adapter_of_a_hub_comes_from_the_cache_too(base, adapter, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--org--adapter"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    shutil.copytree(adapter, root / "snapshots" / ("a" * 40))
    backbone = load("org/adapter")
    assert backbone.name == "org/adapter" and torch.equal(logits(backbone.model), logits(load(str(adapter)).model))


def test_a_run_says_what_it_was_merged_into(adapter, tmp_path, capsys):
    line = f"run --model {adapter} --task nano_summary --method full --limit 2 --max-new-tokens 4 --no-timing"
    assert main([*line.split(), "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    (record,) = read_lines(tmp_path / "out" / "records.jsonl", Record)
    assert record.backbone.adapter_of == "base" and record.quality.full_mean == record.quality.mean
    assert "adapter: an adapter, merged into base" in capsys.readouterr().err
