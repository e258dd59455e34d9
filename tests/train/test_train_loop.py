"""The training loop on tiny models: it learns, resumes, and refuses damaged checkpoints."""

import json

import pytest
import tiny_models
import torch
import toy_task
from accelerate import Accelerator

from dlbench.errors import DlbenchError
from dlbench.models.backbone import wrap
from dlbench.prompting.teacher_forcing import IGNORED, Example
from dlbench.train.loop import Totals, Trainer, rate
from dlbench.train.objective import Objective
from dlbench.train.recipes import LayerSkip, SkipTuned, Sorted
from dlbench.train.spec import TrainSpec


class Killed(Exception):
    pass


def trainer(tmp_path, recipe=None, family="llama", dtype=torch.float32, lr=3e-3, steps=12, save=5.0, **more):
    tmp_path.mkdir(exist_ok=True)
    backbone = wrap(tiny_models.build(family, depth=4, dtype=dtype), toy_task.Characters())
    generator = torch.Generator().manual_seed(3)
    texts = []
    for i in range(4 * steps):
        start = int(torch.randint(2, 40, (1,), generator=generator))
        texts.append(Example([start, start + 1], list(range(start + 2, start + 5 + i % 3))))
    spec = TrainSpec("sorted", ("toy",), tmp_path, micro_tokens=16, warmup=0.1, save_minutes=save, **more)
    return Trainer(
        objective=Objective(backbone, recipe or Sorted((2, 4))),
        steps=[texts[i : i + 4] for i in range(0, len(texts), 4)],
        spec=spec,
        lr=lr,
        accelerator=Accelerator(cpu=True, device_placement=False),
        device=torch.device("cpu"),
        folder=tmp_path,
        log=tmp_path / "log.jsonl",
    )


def weights(made):
    return {name: p.detach().clone() for name, p in made.objective.model.named_parameters()}


def quiet(steps, what=None):
    pass


def stopped_at(step):
    """A `done` that dies once this many steps are finished: their checkpoint is there, the next one is not."""
    finished = [0]

    def done(steps, what=None):
        finished[0] += steps
        if finished[0] > step:
            raise Killed

    return done


@pytest.mark.parametrize("recipe", [Sorted((2, 4)), LayerSkip(), SkipTuned("static_skip", {"only": (0, 2)})])
@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon-7b", "bloom"])
def test_training_lowers_the_loss(tmp_path, family, recipe):
    made = trainer(tmp_path, recipe, family, steps=20)
    made.run(quiet)
    lines = [json.loads(line) for line in made.log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert all(lines[1]["loss"][n] < lines[0]["loss"][n] for n in ("4",))
    assert set(lines[0]["loss"]) == {"2", "3", "4"} if recipe.name == "layerskip" else {"4"}
    assert lines[1]["tokens"] == made.totals.tokens == sum(len(e.prompt) + len(e.target) for s in made.steps for e in s)
    assert made.totals.targets == sum(len(e.target) for s in made.steps for e in s)
    assert not made.objective.training


def test_a_step_is_the_mean_over_its_targets_however_it_is_cut(tmp_path):
    whole = trainer(tmp_path / "a", steps=3, dtype=torch.float64)
    whole.spec = TrainSpec(recipe="sorted", tasks=("toy",), out=tmp_path, micro_tokens=1000, warmup=0.1)
    parts = trainer(tmp_path / "b", steps=3, dtype=torch.float64)
    assert len(list(parts._forwards(parts.steps[0]))) > len(list(whole._forwards(whole.steps[0]))) == 1
    for made in (whole, parts):
        made.run(quiet)
    after = weights(whole), weights(parts)
    assert all(torch.allclose(after[0][n], after[1][n], rtol=0, atol=1e-5) for n in after[0])


def test_the_rate_rises_then_falls_along_a_cosine(tmp_path):
    made = trainer(tmp_path, steps=20, lr=1.0)
    rates = []
    for step in made.steps:
        rates.append(made.optimizer.param_groups[0]["lr"])
        made._step(step)
    assert rates[:3] == pytest.approx([0.0, 0.5, 1.0]) and rates[11] == pytest.approx(0.5)
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    assert rate(5_000_000) == 2e-3 and rate(1_300_000_000) == 2e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # GPT-2 has dropout of its own
@pytest.mark.parametrize("step", [1, 4])
def test_a_training_that_is_taken_up_again_ends_with_the_same_weights(tmp_path, family, step):
    recipe = LayerSkip(p_max=0.5)
    whole = trainer(tmp_path / "whole", recipe, family, steps=5)
    whole.run(quiet)
    part = trainer(tmp_path / "part", recipe, family, steps=5, save=0.0)
    with pytest.raises(Killed):
        part.run(stopped_at(step))
    torch.manual_seed(99)  # what the process did in between must not matter
    again = trainer(tmp_path / "part", recipe, family, steps=5)
    seen = []
    again.run(lambda steps, what=None: seen.append(steps))
    assert seen[0] == step and len(seen) == 1 + 5 - step
    ended, expected = weights(again), weights(whole)
    assert all(torch.equal(ended[n], expected[n]) for n in expected)
    assert again.totals.tokens == whole.totals.tokens
    logs = [[json.loads(x) for x in made.log.read_text().splitlines()] for made in (whole, again)]
    assert [(x["step"], x["lr"]) for x in logs[0]] == [(x["step"], x["lr"]) for x in logs[1]]


def test_another_seed_drops_other_layers(tmp_path):
    ended = []
    for seed in (0, 1):
        made = trainer(tmp_path / str(seed), LayerSkip(p_max=0.9), seed=seed)
        made.run(quiet)
        ended.append(weights(made))
    assert any(not torch.equal(ended[0][n], ended[1][n]) for n in ended[0])


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    made = trainer(tmp_path)
    made.totals = Totals(step=10)
    made.log.write_text('{"step": 10}\n{"step": 20}\n{"st')
    made._forget_later_lines()
    assert made.log.read_text() == '{"step": 10}\n'


def test_a_process_without_texts_gives_a_gradient_of_zero(tmp_path):
    made = trainer(tmp_path)
    made.accelerator = type("Two", (), {"process_index": 1, "num_processes": 2})()
    ((batch, targets, last),) = made._forwards(made.steps[0][:1])
    assert last and targets == 0 and bool((batch.labels == IGNORED).all())
    sum(made.objective(batch, 0).values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in made.objective.parameters())


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path):
    made = trainer(tmp_path)
    made._save()
    made.checkpoint.write_bytes(made.checkpoint.read_bytes()[:1000])
    with pytest.raises(DlbenchError, match=r"checkpoint\.pt is damaged .*delete it to start again"):
        trainer(tmp_path).run(quiet)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    made = trainer(tmp_path)
    with torch.no_grad():
        next(made.objective.parameters()).fill_(float("nan"))
    with pytest.raises(DlbenchError, match="no longer a number at step 1: give a lower --lr"):
        made.run(quiet)
