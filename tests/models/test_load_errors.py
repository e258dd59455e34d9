"""Every failure of loading is one line with its true cause."""

import argparse
import errno
import json
import shutil
import struct
import types

import pytest
import small_model
import torch
from checkpoints import copy
from huggingface_hub import errors as hub
from safetensors.torch import load_file

from dlbench.errors import DlbenchError
from dlbench.models.checkpoint import load_errors
from dlbench.models.loading import load


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


def keep(name, share):
    def change(folder):
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * share)])

    return change


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def drop(*patterns):
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def config(**values):
    def change(folder):
        path = folder / "config.json"
        content = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def zeros(folder):
    path = folder / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))


def dtype(old, new):
    def change(folder):
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        path.write_bytes(raw[:8] + raw[8 : 8 + length].replace(old, new, 1) + raw[8 + length :])

    return change


def nested(folder):
    (folder / "inside").mkdir()
    for path in folder.glob("*.*"):
        path.rename(folder / "inside" / path.name)


def torches(name="pytorch_model.bin", save=torch.save, **options):
    def change(folder):
        save(load_file(folder / "model.safetensors"), folder / name, **options)
        (folder / "model.safetensors").unlink()

    return change


def objects(weights, path):
    torch.save({**weights, "made": argparse.Namespace()}, path)


def index(content):
    def change(folder):
        rename("model.safetensors", "model-1.safetensors")(folder)
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


def several(*changes):
    return lambda folder: [change(folder) for change in changes]


CONFIG = '"model_type": "llama"'
CAUSES = {
    # weights
    "cut off": (keep("model.safetensors", 0.5), r"model\.safetensors is cut off: 215,568 bytes of 431,136"),
    "one byte short": (keep("model.safetensors", 1 - 1e-6), r"model\.safetensors is cut off: 431,135 bytes of 431,1"),
    "cut off in its header": (keep("model.safetensors", 1e-3), r"model\.safetensors is cut off, 431 bytes long"),
    "empty": (put("model.safetensors", ""), r"model\.safetensors is empty"),
    "all zeros": (zeros, r"model\.safetensors is filled with zeros"),
    "a web page": (put("model.safetensors", "<!DOCTYPE html><p>no</p>" * 9), r"model\.safetensors is a web page"),
    "a pointer": (
        put("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        r"model\.safetensors is a pointer of Git LFS, not the file: run `git lfs pull`",
    ),
    "noise": (put("model.safetensors", b"\x93\x42" * 500), r"model\.safetensors is no safetensors file"),
    "no JSON in the header": (dtype(b"{", b"["), r"model\.safetensors is damaged, its header cannot be read"),
    "a dtype of tomorrow": (dtype(b'"F32"', b'"Q32"'), r"model\.safetensors holds weights of dtype Q32, which torch"),
    "no weights": (drop("model.safetensors"), r"it has no weights \(model\.safetensors, pytorch_model\.bin, or"),
    "weights by another name": (
        rename("model.safetensors", "weights.safetensors"),
        r"it has no weights .*; weights\.safetensors is not what transformers looks for",
    ),
    "no GGUF": (rename("model.safetensors", "q4.gguf"), r"q4\.gguf is no GGUF file, whatever its name says"),
    "a file that is not there": (
        index({"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}),
        r"1 of its 2 files of weights are not there: model-2\.safetensors",
    ),
    "an index without a map": (index({"metadata": {}}), r"model\.safetensors\.index\.json has no weight_map"),
    "an index that is no JSON": (
        several(index({}), put("model.safetensors.index.json", "{")),
        r"model\.safetensors\.index\.json is not JSON: .*line 1",
    ),
    "torch's file cut off": (several(torches(), keep("pytorch_model.bin", 0.5)), r"pytorch_model\.bin is cut off"),
    "torch's old file cut off": (
        several(torches(_use_new_zipfile_serialization=False), keep("pytorch_model.bin", 0.5)),
        r"its weights cannot be read: .*",
    ),
    "no file of torch": (several(torches(), put("pytorch_model.bin", "hello")), r"pytorch_model\.bin is no file that"),
    "objects": (torches(save=objects), r"pytorch_model\.bin holds more than tensors, and pickled code may do any"),
    # config.json
    "nothing": (drop("*"), r"it has no config\.json, so it is no folder that transformers saved"),
    "no configuration": (drop("config.json"), r"it has no config\.json"),
    "one folder too high": (nested, r"it has no config\.json; .*inside has one: give that folder"),
    "no JSON": (put("config.json", "{"), r"config\.json is not JSON: Expecting property name .*line 1 column 2"),
    "a list": (put("config.json", "[]"), r"config\.json holds no JSON object"),
    "bytes": (put("config.json", b"\xff\xfe{}"), r"config\.json is not JSON: 'utf-8' codec"),
    "no type": (config(model_type=None), r"config\.json does not say of which model_type it is"),
    "an encoder and a decoder": (config(model_type="t5"), r"'t5', which dlbench cannot run: .* It runs bloom, "),
    "pictures": (config(model_type="vit"), r"is of type 'vit', which dlbench cannot run: "),
    "a type of tomorrow": (config(model_type="llama9"), r"'llama9', which dlbench cannot run: transformers"),
    "a word for a number": (config(hidden_size="abc"), r"config\.json cannot be read: .*'hidden_size' expected int"),
    "heads that do not fit": (config(num_attention_heads=3), r"config\.json cannot be read: .*not a multiple of"),
    "no such activation": (config(hidden_act="nope"), r"transformers cannot build what config.*KeyError: 'nope'"),
    "padding outside": (config(pad_token_id=1024), r"has a pad_token_id of 1024, and a vocab_size of 1024: correct"),
    "quantised": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        r"it is quantised by gptq, which cannot be used here: ImportError: .*optimum",
    ),
    "quantised otherwise": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        r"it is quantised by bitsandbytes, which cannot be used here: ImportError: .*pip install -U bitsandbytes",
    ),
    # tokenizer
    "no tokenizer": (drop("tokenizer*"), r"it has no vocabulary of a tokenizer \(tokenizer\.json"),
    "its settings only": (drop("tokenizer.json"), r"it has no vocabulary of a tokenizer \(tokenizer\.json"),
    "its settings no JSON": (put("tokenizer_config.json", "{"), r"tokenizer_config\.json is not JSON"),
    "a tokenizer cut off": (keep("tokenizer.json", 0.5), r"tokenizer\.json is not JSON"),
    "a tokenizer's pointer": (
        put("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"),
        r"tokenizer\.json is a pointer of Git LFS",
    ),
    "a tokenizer's code": (
        put("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["own.Own", null]}, "tokenizer_class": "Own"}'),
        r"it brings code of its own: read it, and if you trust it, run with --trust-remote-code",
    ),
    "SentencePiece": (
        several(drop("tokenizer.json"), put("tokenizer.model", b"\n\x0f\n\x05<unk>\xff\xff")),
        r"tokenizer\.model is a SentencePiece file, and sentencepiece and protobuf are not installed: pip install",
    ),
    "tiktoken": (
        several(drop("tokenizer.json"), put("tokenizer.model", "IQ== 0\nIg== one\n")),
        r"tokenizer\.model is a tiktoken file, and tiktoken and blobfile are not installed",
    ),
    "no merges": (
        several(drop("tokenizer*"), config(model_type="qwen2"), put("vocab.json", '{"a": 0, "b": 1}')),
        r"its tokenizer lacks merges\.txt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_a_folder_that_cannot_be_loaded_says_why(name, small, tmp_path, monkeypatch):
    monkeypatch.setattr(load_errors, "_installed", lambda module: False)
    change, message = CAUSES[name]
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    change(folder)
    with pytest.raises(DlbenchError, match=message) as refused:
        load(str(folder))
    text = str(refused.value)
    assert str(folder) in text and "\n" not in text and len(text) < 900 and "\x1b" not in text


class ConnectError(Exception):
    """As the library that carries the hub's requests calls it."""


def answer(cls):
    return cls("what the hub said\nin lines", response=types.SimpleNamespace(headers={}, request=None))


HUB = {
    "gated": (lambda: answer(hub.GatedRepoError), "it is gated: ask for access on its page, then log in"),
    "unknown": (lambda: answer(hub.RepositoryNotFoundError), "the hub has no model of that name"),
    "no such revision": (lambda: answer(hub.RevisionNotFoundError), "it has no such revision"),
    "offline": (lambda: hub.OfflineModeIsEnabled("off"), "the hub is not asked (offline): it needs a network"),
    "not in the cache": (lambda: hub.LocalEntryNotFoundError("no"), "it needs a network or a filled cache"),
    "no way there": (lambda: ConnectError("no route"), "it needs a network or a filled cache"),
    "cannot write": (lambda: PermissionError(errno.EACCES, "Permission denied", "/cache"), "/cache: Permission denied"),
    "disk full": (lambda: OSError(errno.ENOSPC, "No space left on device", "/cache"), "/cache: No space left"),
}  # fmt: skip


@pytest.mark.parametrize("name", HUB)
def test_a_hub_that_gives_nothing_says_why(name, tmp_path, monkeypatch):
    import huggingface_hub.constants
    import transformers.utils.hub

    error, message = HUB[name]

    def refuse(*_, **__):
        raise error()

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", refuse)
    with pytest.raises(DlbenchError) as refused:
        load("org/name")
    text = str(refused.value)
    assert text.startswith("cannot load model 'org/name': ") and message in text and "\n" not in text


def test_a_hub_that_cannot_be_reached_is_told_from_one_that_is_not_asked(tmp_path, monkeypatch):
    import huggingface_hub.constants

    for offline, said in ((True, "the hub is not asked (offline)"), (False, "the hub cannot be reached")):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        found = load_errors.explain("org/name", OSError("x"), "configuration", None)
        assert "config.json cannot be read: x" in str(found)
        found = load_errors.explain("org/name", ConnectError("x"), "configuration", None)
        assert said in str(found)


@pytest.mark.parametrize("name", ["a" * 97, f"org/{'b' * 120}", "we ird", "org/a..b", "-x"])
def test_names_that_no_hub_can_have_are_told(name):
    with pytest.raises(DlbenchError, match="that is no folder, and no name that a hub can have"):
        load(name)


def test_a_snapshot_is_looked_at_like_a_folder(small, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--org--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    snapshot = copy(small, root / "snapshots" / ("a" * 40))
    keep("model.safetensors", 0.5)(snapshot)
    with pytest.raises(DlbenchError, match=r"cannot load model 'org/name': .*model\.safetensors is cut off"):
        load("org/name")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/m/model.safetensors"), r"/m/model\.safetensors: Perm"),
        (OSError(errno.EIO, "Input/output error"), "a file: Input/output error"),
        (torch.OutOfMemoryError("CUDA out of memory"), "in float32 does not fit the memory of cpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "in float32 does not fit the memory of cpu"),
        (RuntimeError("something\nnew \x1b[1m" + "x" * 999), "its weights cannot be read: something new"),
    ],
)  # fmt: skip
def test_what_the_files_do_not_tell_the_error_tells(error, message, small, monkeypatch):
    import transformers

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(DlbenchError, match=message) as refused:
        load(str(small))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize("content", ["{", "[]", '{"base_sha256": 5}', '{"base_sha256": "abc"}'])
def test_a_card_that_is_damaged_is_told(content, small, tmp_path):
    folder = copy(small, tmp_path / "m")
    (folder / "dlbench.json").write_text(content)
    with pytest.raises(DlbenchError, match=r"dlbench\.json (is not JSON|holds no JSON|is damaged)"):
        load(str(folder))


@pytest.mark.parametrize(
    ("size", "value"), [("hidden_size", 10**12), ("num_hidden_layers", 10**9), ("vocab_size", 10**10), ("head_dim", -1)]
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(small, tmp_path, size, value):
    folder = shutil.copytree(small, tmp_path / "absurd")
    config(**{size: value})(folder)
    with pytest.raises(DlbenchError, match=f"{size} = {value}, where 1 to ") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
