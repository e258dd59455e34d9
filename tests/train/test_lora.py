"""Adapters: they alone learn, merging changes no logits, and a training of them is resumed like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
import toy_task
from accelerate import Accelerator
from safetensors.torch import load_file

from dlbench.cli import main
from dlbench.models.backbone import wrap
from dlbench.models.loading import load
from dlbench.prompting.teacher_forcing import Batch, Example
from dlbench.train import lora
from dlbench.train.card import Learnt, read_card
from dlbench.train.loop import Trainer, rate
from dlbench.train.objective import Objective, learning
from dlbench.train.recipes import LayerSkip, Recipe, SkipTuned, Sorted
from dlbench.train.spec import TrainSpec

peft = pytest.importorskip("peft")
DEPTH = 5
EXAMPLES = [Example([5, 6, 7], [8, 9, 10]), Example([11, 12], [13, 14, 15, 16, 17, 18])]
ROUTED = SkipTuned("static_skip", {"only": (0, 2)}, "routed")
RECIPES = [Sorted((2, 4)), LayerSkip(p_max=0.5), SkipTuned("static_skip", budget=0.5), ROUTED]


def adapted(recipe: Recipe, family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0):
    backbone = wrap(tiny_models.build(family, depth=DEPTH, dtype=dtype), toy_task.Characters())
    return backbone, lora.attach(backbone, 3, learning(recipe, DEPTH), seed)


def trainer(folder: Path, recipe: Recipe, family: str = "llama", steps: int = 5, save: float = 5.0):
    folder.mkdir(exist_ok=True)
    backbone, adapters = adapted(recipe, family)
    spec = TrainSpec("sorted", ("toy",), folder, micro_tokens=16, warmup=0.1, save_minutes=save, lora=3)
    made = Trainer(
        objective=Objective(backbone, recipe, adapted=True),
        steps=[[Example([i % 40 + 2, 3], [4, 5 + i % 7, 6])] * 2 for i in range(steps)],
        spec=spec,
        lr=1e-2,
        accelerator=Accelerator(cpu=True, device_placement=False),
        device=torch.device("cpu"),
        folder=folder,
        log=folder / "log.jsonl",
    )
    return made, adapters


def state(objective: Objective) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in objective.model.state_dict().items()}


def quiet(steps: int, what: str | None = None) -> None:
    pass


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon-7b", "bloom", "phi3"])
def test_only_adapters_learn_and_merging_changes_no_logits(tmp_path, family, recipe):
    made, adapters = trainer(tmp_path, recipe, family)
    before = state(made.objective)
    made.run(quiet)
    after = state(made.objective)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(made.objective.weights()) and all("lora_" in name for name in changed)
    assert made.learnt == sum(after[name].numel() for name in changed)
    layers = {int(part) for name in changed for part in name.split(".") if part.isdecimal()}
    assert layers == ({0, 2} if recipe is ROUTED else set(range(DEPTH)))  # a layer that no token runs has none
    held = {id(g) for group in made.optimizer.param_groups for g in group["params"]}
    assert held == {id(p) for p in made.objective.parameters() if p.requires_grad}

    backbone = made.objective.backbone
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        through = backbone.model(ids).logits
        adapters.merge()
        merged = backbone.model(ids).logits
        base = wrap(tiny_models.build(family, depth=DEPTH), toy_task.Characters()).model(ids).logits
    assert torch.allclose(through, merged, atol=1e-5) and not torch.allclose(base, merged, atol=1e-3)
    assert set(backbone.model.state_dict()) == set(wrap(tiny_models.build(family, depth=DEPTH)).model.state_dict())


_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
REFUSED = {
    "phimoe": ("mlp.router",),
    "llama4": ("router",),
    "falcon_h1": ("mamba.out_proj",),
    "jamba": ("dt_proj",),
    **dict.fromkeys(("qwen3_moe", "glm4_moe", "ernie4_5_moe", "qwen3_next"), _FEED_FORWARD),
}
"""Linear maps without an adapter: they return more than a product, are read past it, or peft takes them for experts."""


def llama4_moe():
    """Options of Llama 4 with experts, whose router is a linear map that returns two tensors."""
    options = {
        k: v for k, v in tiny_models._RECOGNISED["llama4"][1].items() if k not in ("moe_layers", "no_rope_layers")
    }
    return {**options, "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2}


@pytest.mark.parametrize("family", [*tiny_models.EVERY, *tiny_models.MIXTURES, *tiny_models.HYBRIDS, "llama4-moe"])
def test_every_linear_map_of_every_layer_has_an_adapter_that_adds_nothing_yet(family, monkeypatch):
    monkeypatch.setitem(tiny_models._RECOGNISED, "llama4-moe", ("Llama4TextConfig", llama4_moe()))
    recipe = Sorted((2, 4))
    plain = wrap(tiny_models.build(family, depth=DEPTH))
    expected = Objective(plain, recipe)(Batch.of(EXAMPLES), 0)
    backbone, adapters = adapted(recipe, family)
    losses = Objective(backbone, recipe, adapted=True)(Batch.of(EXAMPLES), 0)
    rounding = 1e-6 if family in tiny_models.HYBRIDS else 0.0  # Jamba's losses depend on which weights have gradients
    assert all(torch.allclose(loss, expected[name], rtol=rounding, atol=0.0) for name, loss in losses.items())
    sum(losses.values()).backward()
    learning = {name: p.grad for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert not [name for name, grad in learning.items() if grad is None]
    linear = [n for n, m in plain.layers.named_modules() if isinstance(m, (torch.nn.Linear, lora.Conv1D))]
    linear = [n for n in linear if not n.endswith(REFUSED.get(family.partition("-")[0], ()))]
    with_adapter = [n for n, m in backbone.layers.named_modules() if hasattr(m, "lora_A")]
    assert with_adapter == linear and {n.split(".", 1)[1] for n in linear} == set(adapters.modules)
    outside = [n for n, m in backbone.model.named_modules() if hasattr(m, "lora_A")]
    assert len(outside) == len(linear)  # the head has none
    matrices = {n.removesuffix(".weight"): p.numel() for n, p in plain.layers.named_parameters() if p.ndim > 1}
    left = {n: size for n, size in matrices.items() if n not in linear}
    assert {n.split(".", 1)[1] for n in left} == set(adapters.without)
    assert adapters.without_share == sum(left.values()) / sum(p.numel() for p in plain.layers.parameters())


def test_the_card_says_what_of_the_layers_has_no_adapter():
    dense = Learnt(parameters=2, of=9, rank=2, alpha=4, modules=("self_attn.q_proj",), without_share=0.0)
    assert "on self_attn.q_proj of the decoder layers; embedding, norms and head are the base's" in dense.line()
    mixture = dense.model_copy(update={"without": ("mlp.gate", "mlp.experts.down_proj"), "without_share": 0.925})
    assert "; mlp.gate, mlp.experts.down_proj have none (92.5% of the weights of these layers); embed" in mixture.line()


@pytest.mark.parametrize("step", [1, 4])
def test_a_training_that_is_taken_up_again_ends_with_the_same_weights(tmp_path, step):
    recipe = LayerSkip(p_max=0.5)
    whole, _ = trainer(tmp_path / "whole", recipe, "gpt2")
    whole.run(quiet)

    class Killed(Exception):
        pass

    def stop(steps: int, what: str | None = None) -> None:
        if part.totals.step > step:
            raise Killed

    part, _ = trainer(tmp_path / "part", recipe, "gpt2", save=0.0)
    with pytest.raises(Killed):
        part.run(stop)
    held = torch.load(part.checkpoint, weights_only=True)["model"]
    assert held and all("lora_" in name for name in held)  # the base is read from its own folder
    torch.manual_seed(99)
    again, _ = trainer(tmp_path / "part", recipe, "gpt2")
    again.run(quiet)
    ended, expected = state(again.objective), state(whole.objective)
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


def test_the_seed_draws_the_adapters():
    drawn = [Objective(adapted(Sorted(), seed=seed)[0], Sorted(), adapted=True).weights() for seed in (1, 1, 2)]
    first = next(name for name in drawn[0] if "lora_A" in name)
    assert torch.equal(drawn[0][first], drawn[1][first]) and not torch.equal(drawn[0][first], drawn[2][first])


@pytest.mark.parametrize("only_adapters", [False, True])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neo", "falcon-7b", "phi3-longrope"])
def test_computing_layers_again_changes_no_gradient(family, recipe, only_adapters):
    found = []
    for recompute in (False, True):
        if only_adapters:
            backbone, _ = adapted(recipe, family)
        else:
            backbone = wrap(tiny_models.build(family, depth=DEPTH))
        objective = Objective(backbone, recipe, adapted=only_adapters, recompute=recompute).train()
        torch.manual_seed(3)  # GPT-2 has dropout of its own
        loss = sum(objective(Batch.of(EXAMPLES), 0).values())
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1].keys() == found[1][1].keys() != set()
    assert all(torch.equal(grad, found[1][1][name]) for name, grad in found[0][1].items())


def test_fewer_states_are_kept_for_the_backward_pass():
    held = []
    for recompute in (False, True):
        objective = Objective(adapted(Sorted())[0], Sorted(), adapted=True, recompute=recompute).train()
        kept = [0]

        def note(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            objective(Batch.of(EXAMPLES), 0)
        held.append(kept[0])
    assert held[1] < held[0] / 4


def test_adapters_learn_at_a_higher_rate():
    assert (rate(5_000_000, lora=True), rate(135_000_000, lora=True)) == (5e-3, 5e-4)


# ---- the command


def command(tiny: Path, out: Path, *more: str) -> list[str]:
    return ["train", "skip-tuned", "--model", str(tiny), "--task", "nano_math", "--out", str(out), "--documents", "40",
            "--batch-tokens", "400", "--score", "2", "--lora", "2", *more]  # fmt: skip


def test_one_command_trains_for_every_set(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "many"
    arguments = command(
        tiny, out, "--budget", "0.5", "--budget", "1", "--method", "static_skip", "--method", "static_exit"
    )
    assert main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    folders = [f"many-{method}-{budget}" for method in ("static_skip", "static_exit") for budget in ("0.5", "1")]
    assert sorted(p.name for p in out.iterdir()) == sorted(folders)
    cards = {name: read_card(out / name) for name in folders}
    assert [m.layers for m in cards["many-static_skip-0.5"].quality] == [(0, 2), (0, 1, 2, 3)]
    assert [m.layers for m in cards["many-static_exit-0.5"].quality] == [(0, 1), (0, 1, 2, 3)]
    assert [m.name for m in cards["many-static_exit-1"].quality] == ["full"]  # plain fine-tuning
    assert "training 4 of 4: many-static_exit-1" in said and "static_skip @ 0.5" in said
    assert f"--model {tiny} --model {out / folders[0]} --model" in said and "--budget 0.5 --budget 1" in said
    base = load(str(tiny))
    for name, card in cards.items():
        assert load(str(out / name)).base_sha256 == card.base_sha256 == base.sha256
        assert card.learnt is not None and (card.learnt.rank, card.learnt.alpha) == (2, 4)
        assert card.learnt.of == base.model.num_parameters() + card.learnt.parameters
        assert set(card.learnt.modules) >= {"self_attn.q_proj", "mlp.down_proj"} and card.options["method"] in name
    text = (out / folders[0] / "README.md").read_text()
    assert "LoRA of rank 2, alpha 4, on self_attn.q_proj, " in text and "`adapter/` has them alone" in text
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("trained already") == 4


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft reads what is renamed
def test_the_adapter_alone_gives_the_merged_model(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """In peft's own format; the weights differ by their rounding to bfloat16, in which they are stored."""
    out = tmp_path / "out"
    monkeypatch.chdir(tiny.parent)
    assert main(command(Path(tiny.name), out, "--dtype", "float32", "--gradient-checkpointing")) == 0
    settings = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["r"], settings["lora_alpha"]) == (str(tiny), 2, 4)
    model = peft.PeftModel.from_pretrained(load(str(tiny)).model, out / "adapter")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    merged = load(str(out)).model
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, merged(ids).logits, atol=2e-2)
    base, trained = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    assert {t.dtype for t in trained.values()} == {torch.bfloat16}
    kept = {name for name in base if torch.equal(base[name], trained[name])}
    assert kept == {name for name in base if "proj" not in name}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--lora", "0"), "--lora 0: give at least 1"),
        (("--budget", "1.5"), "budget 1.5: give a share of the layers above 0 and at most 1"),
        (("--method", "short_gpt", "--budget", "0.5"), "method 'short_gpt' learns its set: give what `dlbench fit`"),
        (("--method", "ffn_skip", "--budget", "0.5"), "method 'ffn_skip'"),
    ],
)
def test_a_slip_is_one_clear_line(tiny: Path, tmp_path: Path, capsys, more, message) -> None:
    assert main(command(tiny, tmp_path / "out", *more)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("dlbench: ") and message in line


def test_a_slip_in_one_set_is_told_before_the_first_is_trained(tiny: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(command(tiny, out, "--method", "static_skip", "--method", "short_gpt", "--budget", "0.5")) == 2
    assert "method 'short_gpt' learns its set" in capsys.readouterr().err and not out.exists()


def test_a_budget_is_of_skip_tuned(tiny: Path, tmp_path: Path, capsys) -> None:
    arguments = ["train", "sorted", "--model", str(tiny), "--out", str(tmp_path / "out"), "--budget", "0.5"]
    assert main(arguments) == 2
    assert "--budget is an option of recipe skip-tuned, not of sorted" in capsys.readouterr().err


def test_without_peft_one_line_says_what_to_install(tiny: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(command(tiny, tmp_path / "out")) == 2
    assert "--lora needs peft: pip install 'dlbench[peft]'" in capsys.readouterr().err


def test_several_trainings_need_a_folder_of_their_own(tiny: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "train.json").write_text("{}")
    assert main(command(tiny, tmp_path, "--budget", "0.5", "--budget", "0.75")) == 2
    assert "holds a single training, not several" in capsys.readouterr().err
