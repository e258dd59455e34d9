"""What is decoded: prompts cut to the context, the same waves whatever the processes, and only what is missing."""

import numpy as np
import pytest
import tiny_models
import toy_task
from record_samples import FakeTask, document, place

from dlbench.backbones import wrap
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method
from dlbench.methods.full import Full
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip
from dlbench.plan import Setting
from dlbench.quality import QualityRun, tokenise, total, waves
from dlbench.store import Store
from dlbench.task import Document


class Beginning(toy_task.Characters):
    """Puts a begin-of-text token before every text."""

    bos_token_id = 60

    def __call__(self, text):
        return {"input_ids": [60, *super().__call__(text)["input_ids"]]}


class Length(FakeTask):
    """The score is the length of the output."""

    metric = "length"

    def score(self, document, output):
        return {"length": float(len(output)), "one": 1.0}


def engine(tokenizer=None, ends=()):
    model = tiny_models.build("llama", depth=4)
    model.generation_config.eos_token_id = list(ends)
    return Engine(wrap(model, tokenizer or toy_task.Characters(), name="tiny"))


def documents(count=9, limit=5):
    texts = [toy_task.Characters().decode([2 + t % 58 for t in ids]) for ids in tiny_models.prompts(count)]
    return [Document(f"d{i}", text, ("x",), limit, (), i, None) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("length", "cut"), [(88, False), (89, True), (200, True)])
def test_a_long_prompt_loses_its_beginning(length, cut):
    text = "".join(chr(33 + i % 50) for i in range(length))
    plain, begun = (
        tokenise(engine(tokenizer), [Document("a", text, ("x",), 8, (), 0, None)])[0]
        for tokenizer in (toy_task.Characters(), Beginning())
    )
    whole = toy_task.Characters()(text)["input_ids"]
    assert plain.request.ids == tuple(whole[-88:]) and plain.truncated == cut
    assert begun.request.ids == (60, *whole[-87:]) and begun.truncated  # one place goes to the begin-of-text token


def test_prompts_that_cannot_be_run_are_refused():
    with pytest.raises(DlbenchError, match="leaves no room for a prompt"):
        tokenise(engine(), [Document("a", "AB", ("x",), 96, (), 0, None)])
    with pytest.raises(DlbenchError, match="two begin-of-text tokens"):
        tokenise(engine(Beginning()), [Document("a", "\\AB", ("x",), 4, (), 0, None)])


def test_waves_do_not_depend_on_the_processes():
    prompted = tokenise(engine(), documents(9))
    made = waves(prompted, 4)
    assert [len(w) for w in made] == [4, 4, 1]
    lengths = [len(p.request.ids) for w in made for p in w]
    assert lengths == sorted(lengths)  # little padding
    again = waves(prompted[::-1], 4)
    assert [[p.document.id for p in w] for w in again] == [[p.document.id for p in w] for w in made]
    counts = [total(made, [None] * 3, process, 2) for process in (0, 1)]
    assert counts == [3 * 5, 3 * 4]


def settings(place_):
    chosen = [
        Setting("full", "full", Full(), None),
        Setting("static_exit", "static_exit", StaticExit(share=0.5), 0.5),
        Setting("static_skip", "static_skip", StaticSkip(only=(0, 1)), None),
        Setting("random_skip", "random_skip", RandomSkip(), 0.5),
        Setting("full", "full", Full(), None, "sampled", sample=1),
    ]
    return [place_.with_key(s) for s in chosen]


def decode(tmp_path, *, process=0, processes=1, count=9, ends=(), routed=False, size=4):
    run = QualityRun(engine(ends=ends), Length(), Store(tmp_path), 0, routed, process, processes)
    run.store.open({})
    done = []
    everything = settings(place(Length()))
    run.run(waves(tokenise(run.engine, documents(count)), size), everything, done.append)
    return run.store, [s.key for s in everything], done


def test_processes_and_batches_give_the_samples_of_one_run(tmp_path):
    one, keys, done = decode(tmp_path / "one")
    assert sum(done) == 9 * 5
    for process in (1, 0):
        two, _, _ = decode(tmp_path / "two", process=process, processes=2, size=3)
    for key in keys:
        two.merge(key, [])
        plain = {i: s.model_dump(exclude={"executed_flops"}) for i, s in one.samples(key).items()}
        assert {i: s.model_dump(exclude={"executed_flops"}) for i, s in two.samples(key).items()} == plain
        assert len(plain) == 9 and all(s["scores"] == {"one": 1.0} for s in plain.values())


def test_only_what_is_missing_is_decoded(tmp_path, monkeypatch):
    decode(tmp_path, count=4)
    waves_made = []
    prefill = Engine.prefill
    monkeypatch.setattr(Engine, "prefill", lambda self, r, *rest: waves_made.append(len(r)) or prefill(self, r, *rest))
    _, _, done = decode(tmp_path, count=4)
    assert waves_made == [] and sum(done) == 4 * 5
    store, keys, _ = decode(tmp_path, count=9)
    assert sum(waves_made) > 0 and all(len(store.samples(key)) == 9 for key in keys)


def test_texts_that_end_at_once_are_samples(tmp_path):
    store, keys, _ = decode(tmp_path, ends=range(tiny_models.VOCABULARY))
    for key in keys:
        for s in store.samples(key).values():
            assert s.layers == () and s.tokens.generated == 1 and s.flops.total == s.executed_flops == 0
            assert s.prompt_flops > 0


def test_equal_static_sets_share_one_decoding(tmp_path, monkeypatch):
    decoded = []
    from dlbench.engine import Wave

    original = Wave.decode
    monkeypatch.setattr(
        Wave, "decode", lambda self, method=None, **more: decoded.append(method) or original(self, method, **more)
    )
    store, keys, _ = decode(tmp_path, count=4)
    assert len(decoded) == 4  # static_exit and static_skip run the same two layers
    assert store.samples(keys[1]) == store.samples(keys[2]) != store.samples(keys[0])


def test_a_plugin_that_calls_itself_static_is_still_run(tmp_path):
    class OnlyFirst(Method):
        @property
        def scope(self):
            return "static"

        def route(self, view):
            return Action.SKIP if view.layer else Action.RUN

    run = QualityRun(engine(), Length(), Store(tmp_path), 0, False)
    run.store.open({})
    chosen = [
        Setting("full", "full", Full(), None, key="0" * 32),
        Setting("mine", "full", OnlyFirst(), None, key="1" * 32),
    ]
    run.run(waves(tokenise(run.engine, documents(3)), 4), chosen, lambda n: None)
    shares = [np.mean([s.layers for s in run.store.samples(k * 32).values()]) for k in "01"]
    assert shares == [4.0, 1.0]
    assert document("a").limit == 8
