"""What is loaded is what the files hold: real kinds of checkpoints load, and nothing random or zero slips in."""

import json

import checkpoints
import pytest
import small_model
import tiny_models
import torch
from checkpoints import copy, prefixed, rewrite, tied, with_more, without
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from dlbench.cli import main
from dlbench.errors import DlbenchError
from dlbench.models.loading import load

MASK = (1, 1, 8, 8)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


def holds(folder, model):
    """Whether the loaded model has the weights of another one, all of them, and its buffers."""
    loaded = load(str(folder)).model
    pairs = ((m.state_dict(), dict(m.named_buffers())) for m in (loaded, model))
    return all(
        found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
        for found, wanted in zip(*pairs, strict=True)
    )


@pytest.mark.parametrize("family", tiny_models.EVERY)
def test_what_transformers_saves_is_loaded_whole(family, tmp_path):
    model = tiny_models.build(family)
    assert holds(checkpoints.save(model, tmp_path / "m"), model)


def stripped(prefix):
    return lambda weights: {key.removeprefix(prefix): value for key, value in weights.items()}


def both(*changes):
    def change(weights):
        for one in changes:
            weights = one(weights)
        return weights

    return change


def renamed(old, new):
    return lambda weights: {key.replace(old, new): value for key, value in weights.items()}


# As hubs hold them: saved by older releases, by the model without its head, or with heads of other tasks.
HELD = {
    "GPT-2": ("gpt2", True, both(with_more(transformer__h__0__attn__bias=MASK), stripped("transformer."))),
    "DialoGPT": (
        "gpt2",
        True,
        with_more(transformer__h__0__attn__bias=MASK, transformer__h__0__attn__masked_bias=()),
    ),
    "GPT-2 with two heads": ("gpt2", True, with_more(multiple_choice_head__summary__weight=(1, 32))),
    "GPT-Neo": (
        "gpt_neo",
        True,
        with_more(transformer__h__0__attn__attention__bias=MASK, transformer__h__0__attn__attention__masked_bias=()),
    ),
    "Pythia": (
        "gpt_neox",
        False,
        both(
            renamed("lm_head.", "embed_out."),
            with_more(
                gpt_neox__layers__0__attention__bias=MASK,
                gpt_neox__layers__0__attention__masked_bias=(),
                gpt_neox__layers__0__attention__rotary_emb__inv_freq=(4,),
            ),
        ),
    ),
    "OPT": ("opt", True, both(stripped("model."), with_more(decoder__version=(1,)))),
    "OPT with its head": ("opt-projected", False, with_more(model__decoder__version=(1,))),
    "Llama 1": ("llama", False, with_more(model__layers__0__self_attn__rotary_emb__inv_freq=(4,))),
    "Llama with tables": (
        "llama",
        False,
        with_more(
            model__layers__0__self_attn__rotary_emb__cos_cached=MASK,
            model__layers__0__self_attn__rotary_emb__sin_cached=MASK,
        ),
    ),
    "Qwen2": ("qwen2", True, without()),
    "BLOOM": (
        "bloom",
        True,
        both(
            with_more(transformer__h__0__self_attention__scale_mask_softmax__causal_mask=MASK),
            stripped("transformer."),
        ),
    ),
    "Falcon": ("falcon-7b", True, with_more(transformer__h__0__self_attention__maybe_rotary__inv_freq=(4,))),
    "a classifier with a tied head": ("llama", True, with_more(score__weight=(2, 32))),
    "a value head": ("mistral", False, with_more(v_head__summary__weight=(1, 32), v_head__summary__bias=(1,))),
    "the text part of a model that sees": (
        "mistral",
        False,
        with_more(model__vision_tower__patch__weight=(4, 4), model__mm_projector__0__weight=(4, 4)),
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_the_architecture_explains_is_let_pass(name, tmp_path):
    family, shared, change = HELD[name]
    model = tied(family) if shared else tiny_models.build(family, depth=2)
    folder = rewrite(checkpoints.save(model, tmp_path / "m"), change)
    assert not shared or not any("lm_head" in key for key in load_file(folder / "model.safetensors"))
    assert holds(folder, model)


WRAPPED = "save again from the module inside"
LOST = {
    "a compiled model": (prefixed("_orig_mod."), {}, "_orig_mod.lm_head.weight", f"'_orig_mod': {WRAPPED}"),
    "data parallel": (prefixed("module."), {}, "39 of its 39 weights are in none", f"'module': {WRAPPED}"),
    "each layer compiled": (
        renamed(".self_attn.", "._orig_mod.self_attn."),
        {},
        "model.layers.0._orig_mod.self_attn.k_proj.weight",
        f"'_orig_mod': {WRAPPED}",
    ),
    "checkpointed activations": (
        renamed(".mlp.", "._checkpoint_wrapped_module.mlp."),
        {},
        "12 of its 39 weights",
        WRAPPED,
    ),
    "FSDP": (prefixed("_fsdp_wrapped_module."), {}, "39 weights in its files are none of the model's", WRAPPED),
    "an adapter in place": (
        both(prefixed("base_model.model."), renamed("q_proj.weight", "q_proj.base_layer.weight")),
        {},
        "39 of its 39 weights",
        "an adapter's: merge it",
    ),
    "an untied head": (without("lm_head"), {}, "1 of its 39 weights are in none of its files (lm_head.weight)", "tie"),
    "one norm": (without("layers.2.input_layernorm"), {}, "model.layers.2.input_layernorm.weight", "incomplete"),
    "a layer within": (without("layers.1."), {}, "9 of its 39 weights", "do not belong together"),
    "the last layers": (without("layers.2.", "layers.3."), {}, "18 of its 39", "says 4 layers, and the files hold 2"),
    "more layers than are told": (without(), {"num_hidden_layers": 3}, "9 weights", "says 3 layers, and the files"),
    "fewer layers than are told": (without(), {"num_hidden_layers": 5}, "9 of its 48", "says 5 layers, and the files"),
    "biases that the model has not": (
        with_more(model__layers__0__self_attn__q_proj__bias=(32,)),
        {},
        "2 weights in its files are none of the model's (model.layers.0.self_attn.q_proj.bias, model.layers.1",
        "do not belong together",
    ),
    "biases that the files have not": (without(), {"attention_bias": True}, "16 of its 55 weights", "incomplete"),
    "another vocabulary": (without(), {"vocab_size": 100}, "lm_head.weight: 1024×32 instead of 100×32", "fetch both"),
    "another width": (without(), {"intermediate_size": 48}, "12 have another shape", "another model's"),
    "quantised weights": (
        both(renamed("q_proj.weight", "q_proj.qweight"), with_more(model__layers__0__self_attn__q_proj__scales=(4,))),
        {},
        "q_proj.qweight",
        "they are quantised, and config.json does not say how",
    ),
    "another architecture": (without(), {"model_type": "gpt_neox"}, "none of its files", "do not belong together"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_weights_that_are_missing_or_have_no_place_are_refused(name, small, tmp_path):
    change, config, first, second = LOST[name]
    folder = rewrite(copy(small, tmp_path / "m", **config), change)
    with pytest.raises(DlbenchError) as refused:
        load(str(folder))
    text = str(refused.value)
    assert text.startswith("cannot load model ") and " whole: " in text and "\n" not in text
    assert first in text and second in text and len(text) < 1000


def test_a_refusal_comes_before_anything_is_written(small, tmp_path, capsys):
    folder = rewrite(copy(small, tmp_path / "m"), prefixed("_orig_mod."))
    line = f"run --model {folder} --task nano_summary --method full --limit 2 --out {tmp_path / 'out'}"
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert "_orig_mod" in err and err.count("dlbench: ") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [prefixed("_orig_mod."), without("layers.1.mlp"), without("lm_head")])
def test_layers_that_wait_on_disk_are_judged_alike(change, small, tmp_path):
    """Of a layer that was mapped to disk, and of one that was not, weights are missing."""
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
    (tmp_path / "map.json").write_text(json.dumps(places))
    folder = rewrite(copy(small, tmp_path / "m"), change)
    with pytest.raises(DlbenchError, match=r"whole: .* are in none of its files"):
        load(str(folder), device_map=str(tmp_path / "map.json"))


# ---- several files, and torch's own


@pytest.fixture(scope="module")
def sharded(small, tmp_path_factory):
    folder = copy(small, tmp_path_factory.mktemp("models") / "sharded")
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(small).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) == 4
    return folder


def test_one_file_several_and_torchs_own_hold_the_same(small, sharded, tmp_path):
    weights, whole = load_file(small / "model.safetensors"), load(str(small))
    torches = copy(small, tmp_path / "bin")
    (torches / "model.safetensors").unlink()
    torch.save(weights, torches / "pytorch_model.bin")
    several = copy(torches, tmp_path / "bins")
    (several / "pytorch_model.bin").unlink()
    files = {key: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, key in enumerate(weights)}
    for file in set(files.values()):
        torch.save({key: weights[key] for key in files if files[key] == file}, several / file)
    (several / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    for folder in (sharded, torches, several):
        found = load(str(folder))
        assert found.weights_sha256 == whole.weights_sha256 and found.sha256 != whole.sha256


def test_a_file_that_the_index_leaves_out_is_missed(sharded, tmp_path):
    folder = copy(sharded, tmp_path / "m")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if "00002-of" not in v}
    path.write_text(json.dumps(index))
    with pytest.raises(DlbenchError, match=r"are in none of its files .*do not belong together, or are incomplete"):
        load(str(folder))


def test_a_file_of_another_model_is_told_by_its_shapes(sharded, tmp_path):
    folder = copy(sharded, tmp_path / "m")
    file = sorted(folder.glob("model-*.safetensors"))[1]
    save_file({key: value[..., :8].contiguous() for key, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(DlbenchError, match=r"have another shape \(.*×8 instead of .*another model's"):
        load(str(folder))


def test_weights_one_level_down_are_told(small, tmp_path):
    folder = copy(small, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": load_file(small / "model.safetensors")}, folder / "pytorch_model.bin")
    with pytest.raises(DlbenchError, match=r"39 of its 39 weights .*lie one level down, under state_dict"):
        load(str(folder))


# ---- what transformers reads without a word


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_copy_that_broke_off_in_a_file_of_full_length_is_refused(share, small, tmp_path):
    folder = copy(small, tmp_path / "m")
    raw = (folder / "model.safetensors").read_bytes()
    kept = int(len(raw) * share) // 512 * 512
    (folder / "model.safetensors").write_bytes(raw[:kept] + bytes(len(raw) - kept))
    with pytest.raises(DlbenchError, match=r"model\.safetensors ends in [\d,]+ zero bytes, which begin inside "):
        load(str(folder))


@pytest.mark.parametrize("words", [("layers.3.",), ("layers.3.", "model.norm"), ("lm_head",), ("o_proj", "down_proj")])
def test_weights_that_were_made_zero_are_taken_as_they_are(words, small, tmp_path):
    def change(weights):
        return {k: torch.zeros_like(v) if any(w in k for w in words) else v for k, v in weights.items()}

    folder = rewrite(copy(small, tmp_path / "m"), change)
    found = load(str(folder)).model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in load_file(folder / "model.safetensors").items())


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_file_of_torchs_that_is_not_what_was_saved_is_refused(file, small, tmp_path):
    """Its archive holds checksums, which torch does not look at."""
    folder = copy(small, tmp_path / "m")
    weights = load_file(small / "model.safetensors")
    (folder / "model.safetensors").unlink()
    last = list(weights)[-1]
    torch.save({key: weights[key] for key in weights if file == "pytorch_model.bin" or key != last}, folder / file)
    if file != "pytorch_model.bin":
        torch.save({last: weights[last]}, folder / "pytorch_model-00002-of-00002.bin")
        where = {key: file if key != last else "pytorch_model-00002-of-00002.bin" for key in weights}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    load(str(folder))
    raw = bytearray((folder / file).read_bytes())
    some = weights[next(iter(weights))].numpy().tobytes()[:512]
    at = raw.index(some)
    raw[at : at + 64] = bytes(64)
    (folder / file).write_bytes(raw)
    with pytest.raises(DlbenchError, match=rf"{file} is damaged in .*data/\d+, which is not what it was"):
        load(str(folder))


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.int64, torch.complex64])
@pytest.mark.parametrize("torchs", [False, True])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_weights_that_are_no_floating_point_numbers_are_refused(kind, torchs, prefix, small, tmp_path):
    """Of quantised weights whose scales are lost, say; transformers turns them into floats as they stand."""
    name = "layers.1.mlp.up_proj.weight"

    def change(weights):
        weights[f"model.{name}"] = weights[f"model.{name}"].mul(40).to(kind)
        return {prefix + k.removeprefix("model.") if k.startswith("model.") else k: v for k, v in weights.items()}

    folder = rewrite(copy(small, tmp_path / "m"), change)
    if torchs:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    with pytest.raises(DlbenchError, match=rf"holds {prefix}{name} as .*, which is no floating-point number"):
        load(str(folder))


def test_two_files_that_hold_one_weight_are_refused(sharded, tmp_path):
    """transformers takes that of the last file that it reads, whatever the index says."""
    folder = copy(sharded, tmp_path / "m")
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    name, value = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: torch.zeros_like(value)}, second, {"format": "pt"})
    with pytest.raises(DlbenchError, match=rf"{first.name} and .*{second.name} both hold {name}: keep one"):
        load(str(folder))


def test_half_a_range_is_named_as_the_cause(small, tmp_path):
    folder = rewrite(copy(small, tmp_path / "m"), lambda weights: {k: v * 1e6 for k, v in weights.items()})
    with pytest.raises(DlbenchError, match="not finite in float16: take --dtype bfloat16 or float32"):
        load(str(folder), dtype="float16")


def test_a_model_without_layers_is_none(small, tmp_path):
    with pytest.raises(DlbenchError, match=r"config\.json has num_hidden_layers = 0, where 1 to 10,000 makes sense"):
        load(str(copy(small, tmp_path / "m", num_hidden_layers=0, layer_types=None)))


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2", "gpt_neox", "opt"])
def test_a_tokenizer_without_a_vocabulary_is_refused(family, tmp_path):
    """transformers makes an empty one, to which every text is no token at all."""
    tiny_models.build(family, depth=2).save_pretrained(tmp_path / "m")
    with pytest.raises(DlbenchError, match="it has no vocabulary of a tokenizer"):
        load(str(tmp_path / "m"))


def test_a_generation_config_that_is_damaged_is_not_passed_over(small, tmp_path):
    folder = copy(small, tmp_path / "m")
    (folder / "generation_config.json").write_text('{"eos_token_id": 5,')
    with pytest.raises(DlbenchError, match=r"generation_config\.json is not JSON"):
        load(str(folder))
