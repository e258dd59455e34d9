"""What is decoded: prompts cut to the context, the same batches for any number of processes, only missing samples."""

import numpy as np
import pytest
import tiny_models
import torch
import toy_task
from record_samples import FakeTask, conditions, document

from dlbench.data.document import Document
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.evaluation.generation import QualityRun, total
from dlbench.evaluation.settings import Setting
from dlbench.method import Action, Method
from dlbench.methods.full import Full
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip
from dlbench.models import batch_size
from dlbench.models.backbone import wrap
from dlbench.prompting.batching import waves
from dlbench.prompting.tokenize import tokenise
from dlbench.records.run_folder import Store
from dlbench.system import device_memory


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


def test_waves_are_of_similar_length_and_alike_for_all_processes():
    prompted = tokenise(engine(), documents(9))
    made = waves(prompted, 4)
    assert [len(w) for w in made] == [4, 4, 1]
    lengths = [len(p.request.ids) for w in made for p in w]
    assert lengths == sorted(lengths)  # little padding
    again = waves(prompted[::-1], 4)
    assert [[p.document.id for p in w] for w in again] == [[p.document.id for p in w] for w in made]
    shared = waves(prompted, 2, 2)
    assert [[len(p.request.ids) for p in w] for w in shared] == [
        lengths[0:4:2], lengths[1:4:2], lengths[4:8:2], lengths[5:8:2], lengths[8:]
    ]  # fmt: skip
    counts = [total(shared, [None] * 3, process, 2) for process in (0, 1)]
    assert counts == [3 * 5, 3 * 4]


def settings(place_):
    chosen = [
        Setting("full", "full", Full(), None),
        Setting("static_exit", "static_exit", StaticExit(share=0.5), 0.5),
        Setting("static_skip", "static_skip", StaticSkip(only=(0, 1)), None),
        Setting("random_skip", "random_skip", RandomSkip(), 0.5),
        Setting("full", "full", Full(), None, purpose="sampled", sample=1),
    ]
    return [place_.with_key(s) for s in chosen]


def decode(tmp_path, *, process=0, processes=1, count=9, ends=(), routed=False, size=4):
    run = QualityRun(engine(ends=ends), Length(), Store(tmp_path), routed, process=process, processes=processes)
    run.store.open({})
    done = []
    everything = settings(conditions(Length()))
    run.run(waves(tokenise(run.engine, documents(count)), size), everything, done.append)
    run.store.close()
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


def test_the_process_that_is_free_takes_the_next_batch_the_longest_first(tmp_path):
    place_ = conditions(Length())
    (full, *_), taken = settings(place_), set()
    run = QualityRun(engine(), Length(), Store(tmp_path), False)
    run.store.open({})
    run.take = lambda index: index not in taken and taken.add(index) is None
    taken.add(1)  # by another process
    batches, done = waves(tokenise(run.engine, documents(9)), 4), []
    run.run(batches, [full], done.append)
    run.store.close()
    assert taken == {0, 1, 2} and list(filter(None, done)) == [len(batches[2]), len(batches[1]), len(batches[0])]
    assert set(run.store.samples(full.key)) == {p.document.id for batch in (batches[0], batches[2]) for p in batch}


def test_only_what_is_missing_is_decoded(tmp_path, monkeypatch):
    decode(tmp_path, count=4)
    waves_made = []
    prefill = Engine.prefill
    monkeypatch.setattr(
        Engine, "prefill", lambda self, r, *a, **k: waves_made.append(len(r)) or prefill(self, r, *a, **k)
    )
    _, _, done = decode(tmp_path, count=4)
    assert waves_made == [] and sum(done) == 4 * 5
    store, keys, _ = decode(tmp_path, count=9)
    assert sum(waves_made) > 0 and all(len(store.samples(key)) == 9 for key in keys)


def test_a_run_that_is_not_to_go_on_stops_between_two_waves(tmp_path):
    run = QualityRun(engine(), Length(), Store(tmp_path), False)
    run.store.open({})
    everything, done = settings(conditions(Length())), []
    batches = waves(tokenise(run.engine, documents(9)), 3)
    run.go_on = lambda: sum(done) < 3 * 5
    assert not run.run(batches, everything, done.append)
    assert sum(done) == 3 * 5 and {len(run.store.samples(s.key)) for s in everything} == {3}
    run.go_on = lambda: True
    assert run.run(batches, everything, done.append)
    assert {len(run.store.samples(s.key)) for s in everything} == {9}
    run.go_on = lambda: False
    assert run.run(batches, everything, done.append)  # nothing is missing


def test_a_run_that_is_not_to_go_on_stops_between_two_settings_of_a_batch(tmp_path):
    run = QualityRun(engine(), Length(), Store(tmp_path), False)
    run.store.open({})
    everything, done = settings(conditions(Length())), []
    batches = waves(tokenise(run.engine, documents(3)), 3)
    run.go_on = lambda: sum(done) < 2 * 3
    assert not run.run(batches, everything, done.append)
    assert [len(run.store.samples(s.key)) for s in everything] == [3, 3, 0, 0, 0]  # what was decoded is kept
    run.go_on = lambda: True
    assert run.run(batches, everything, done.append)
    assert {len(run.store.samples(s.key)) for s in everything} == {3}


def plain(store, keys):
    return [{i: s.model_dump(exclude={"executed_flops"}) for i, s in store.samples(key).items()} for key in keys]


@pytest.mark.parametrize(("fits", "tried"), [(3, [8, 4, 2]), (1, [8, 4, 2, 1])])
def test_a_wave_that_does_not_fit_is_halved(tmp_path, monkeypatch, fits, tried):
    """What is written is the same; the smaller size is kept, and people are told of every halving."""
    whole, keys, _ = decode(tmp_path / "whole", count=17, size=8)
    rows, said, prefill = [], [], Engine.prefill

    def limited(self, requests, *rest, **more):
        rows.append(len(requests))
        if len(requests) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(self, requests, *rest, **more)

    monkeypatch.setattr(Engine, "prefill", limited)
    run = QualityRun(engine(), Length(), Store(tmp_path / "halved"), False, note=said.append)
    run.store.open({})
    done = []
    run.run(waves(tokenise(run.engine, documents(17)), 8), settings(conditions(Length())), done.append)
    assert rows[: len(tried)] == tried and max(rows[len(tried) :]) <= fits
    assert sum(done) == 17 * 5 and min(done) >= 0
    assert plain(run.store, keys) == plain(whole, keys)
    assert [line.partition(" documents")[0] for line in said] == [f"toy on tiny: {n}" for n in tried[:-1]]
    assert all("documents at once do not fit the memory of cpu" in line for line in said)


def test_every_wave_is_logged(tmp_path):
    run = QualityRun(engine(), Length(), Store(tmp_path), False)
    run.store.open({})
    everything, logged = settings(conditions(Length())), []
    run.log = lambda kind, **facts: logged.append((kind, facts))
    run.run(waves(tokenise(run.engine, documents(5)), 3), everything, lambda amount: None)
    assert {kind for kind, _ in logged} == {"wave"} and all(facts["seconds"] >= 0 for _, facts in logged)
    assert [(facts["key"], facts["documents"]) for _, facts in logged] == [
        *((setting.key, 3) for setting in everything),
        *((setting.key, 2) for setting in everything),
    ]


def test_what_was_finished_before_memory_ran_out_is_kept(tmp_path, monkeypatch):
    from dlbench.engine import Wave

    whole, keys, _ = decode(tmp_path / "whole", count=6, size=6)
    original, calls = Wave.decode, []

    def limited(self, method=None, **more):
        calls.append(len(self.requests))
        if len(calls) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return original(self, method, **more)

    monkeypatch.setattr(Wave, "decode", limited)
    halved, _, done = decode(tmp_path / "halved", count=6, size=6)
    assert calls == [6, 6, 6, 3, 3, 3, 3]  # full and the static set once; what is left, by halves
    assert sum(done) == 6 * 5 and plain(halved, keys) == plain(whole, keys)


def test_a_document_that_does_not_fit_alone_is_named(tmp_path, monkeypatch):
    def full(self, requests, *rest, **more):
        raise MemoryError

    monkeypatch.setattr(Engine, "prefill", full)
    with pytest.raises(DlbenchError, match=r"document d\d of toy does not fit the memory of cpu even alone.* take a"):
        decode(tmp_path, count=5)


def test_other_errors_are_not_taken_for_it(tmp_path, monkeypatch):
    def broken(self, requests, *rest, **more):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Engine, "prefill", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        decode(tmp_path, count=5)


def test_waves_are_cut_to_the_free_memory(tmp_path, monkeypatch):
    """By its own longest prompt each, so that long ones take fewer rows."""
    rows, prefill = [], Engine.prefill

    def noted(self, requests, *rest, **more):
        rows.append((len(requests), max(len(r.ids) for r in requests)))
        return prefill(self, requests, *rest, **more)

    monkeypatch.setattr(Engine, "prefill", noted)
    backbone = engine().backbone
    free = int(5 * batch_size.row_bytes(backbone, 9, 5, 4) / batch_size.SHARE)
    monkeypatch.setattr(device_memory, "free_bytes", lambda device, processes: free)
    whole, keys, _ = decode(tmp_path / "whole", count=30, size=24)
    assert [n for n, _ in rows] == [24, 6]  # a size that was asked for is taken
    rows.clear()
    run = QualityRun(engine(), Length(), Store(tmp_path / "cut"), False, auto=True)
    run.store.open({})
    run.run(waves(tokenise(run.engine, documents(30)), 12), settings(conditions(Length())), lambda n: None)
    assert sum(n for n, _ in rows) == 30
    for n, longest in rows:
        assert n == 1 or n * batch_size.row_bytes(backbone, longest, 5, 4) <= batch_size.SHARE * free
    assert max(n for n, _ in rows) > max(n for n, longest in rows if longest == 9)
    assert plain(run.store, keys) == plain(whole, keys)


def test_static_sets_need_less_where_the_prompt_is_routed(tmp_path):
    run = QualityRun(engine(), Length(), Store(tmp_path), True)
    made = settings(conditions(Length(), prompt="routed"))
    assert [run._cached_layers(s) for s in made[:4]] == [4, 2, 2, 4]
    run.routed = False
    assert [run._cached_layers(s) for s in made[:4]] == [4, 4, 4, 4]


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

    run = QualityRun(engine(), Length(), Store(tmp_path), False)
    run.store.open({})
    chosen = [
        Setting("full", "full", Full(), None, key="0" * 32),
        Setting("mine", "full", OnlyFirst(), None, key="1" * 32),
    ]
    run.run(waves(tokenise(run.engine, documents(3)), 4), chosen, lambda n: None)
    shares = [np.mean([s.layers for s in run.store.samples(k * 32).values()]) for k in "01"]
    assert shares == [4.0, 1.0]
    assert document("a").limit == 8
