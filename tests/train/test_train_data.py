"""Training texts: generated or of the fit split, never scored or measured on; and how they are cut into steps."""

import itertools
from collections.abc import Sequence

import pytest
import tiny_models
import toy_task

from dlbench.data.document import Document
from dlbench.data.loader import load_task
from dlbench.errors import DlbenchError
from dlbench.fit import halves
from dlbench.models.backbone import wrap
from dlbench.models.loading import load
from dlbench.prompting.teacher_forcing import Example
from dlbench.train import data


class ToyTask:
    """As much of a task as data needs."""

    version, max_new_tokens, generator = "3", 8, None

    def __init__(self, name: str, fit: Sequence[Document], test: Sequence[Document] = (), overlap: int = 0) -> None:
        self.name, self.splits, self.fit_overlap = name, {"fit": list(fit), "test": list(test)}, overlap

    def documents(self, split: str) -> list[Document]:
        return self.splits[split]


def documents(count: int, references: tuple[str, ...] = ("CD",), split: str = "fit") -> list[Document]:
    return [Document(f"d{i}", f"P{i}", references, 8, (), i, None, split) for i in range(count)]


@pytest.fixture(scope="module")
def backbone():
    return wrap(tiny_models.build("llama", depth=2), toy_task.Characters())


def test_a_fit_split_gives_its_learn_part_twice(backbone):
    fit = documents(40)
    learn, rest = halves(fit)
    corpus = data.gather(backbone, [ToyTask("toy", fit)], None, None, seed=0)
    assert [len(texts) for texts in corpus.passes] == [len(learn)] * 2
    assert corpus.passes[0] == [Example(backbone.tokenizer(d.prompt)["input_ids"], [0, 35, 36]) for d in learn]
    (source,) = corpus.sources
    assert (source.task, source.version, source.split, source.generator) == ("toy", "3", "fit", None)
    assert (source.documents, source.epochs, source.left_out) == (len(learn), 2, 0)
    assert source.targets == 2 * 3 * len(learn)
    assert source.tokens == source.targets + 2 * sum(len(d.prompt) for d in learn)
    assert {d.id for d in data.tuned_on(ToyTask("toy", fit))} == {d.id for d in rest}


def test_each_epoch_takes_the_next_reference(backbone):
    corpus = data.gather(backbone, [ToyTask("toy", documents(20, ("A", "BB")))], None, 3, seed=0)
    assert [{tuple(e.target) for e in texts} for texts in corpus.passes] == [{(0, 33)}, {(0, 34, 34)}, {(0, 33)}]


def test_what_is_tested_or_measured_on_is_left_out(backbone):
    fit = documents(40)
    learn, rest = halves(fit)
    same = (Document(f"copy{i}", rest[0].prompt, ("CD",), 8, (), 99, None, "fit") for i in range(99))
    copied = next([d] for d in same if halves([d])[0])
    test = [Document("t0", learn[0].prompt, ("CD",), 8, (), 0, None, "test")]
    corpus = data.gather(backbone, [ToyTask("toy", fit + copied, test)], None, 1, seed=0)
    assert corpus.sources[0].left_out == 2 and len(corpus.passes[0]) == len(learn) - 1
    more = data.gather(backbone, [ToyTask("toy", fit + copied, test, 7)], None, 1, seed=0)
    assert more.sources[0].left_out == 9  # with those that the task itself takes out of its fit split
    everything = [ToyTask("toy", fit, [Document(d.id, d.prompt, ("CD",), 8, (), 0, None, "test") for d in fit])]
    with pytest.raises(DlbenchError, match="'toy' has no documents to learn from"):
        data.gather(backbone, everything, None, 1, seed=0)


def test_fewer_documents_are_drawn_alike_from_a_seed_and_more_are_refused(backbone):
    task = ToyTask("toy", documents(40))
    few = [data.gather(backbone, [task], 10, 1, seed=s).passes[0] for s in (0, 0, 1)]
    assert few[0] == few[1] != few[2] and len(few[0]) == 10
    two = data.gather(backbone, [task, ToyTask("other", documents(40))], 10, 1, seed=0)
    assert [s.documents for s in two.sources] == [5, 5]
    with pytest.raises(DlbenchError, match=r"'toy' has \d+ documents to learn from, not 100: give fewer --documents"):
        data.gather(backbone, [task], 100, 1, seed=0)


def test_texts_that_leave_no_room_are_no_texts(backbone):
    long = [Document(f"d{i}", f"{i}" + "P" * 99, ("CD",), 8, (), i, None, "fit") for i in range(9)]
    with pytest.raises(DlbenchError, match="no prompt leaves room for a reference"):
        data.gather(backbone, [ToyTask("toy", long)], None, 1, seed=0)


def test_nano_draws_fresh_documents_that_are_never_tested():
    tasks = [load_task(name) for name in ("nano_math", "nano_translate")]
    nano = load("nano")
    corpus = data.gather(nano, tasks, 60, None, seed=5)
    assert len(corpus.passes) == 1 and len(corpus.passes[0]) == 60
    assert [(s.documents, s.split, s.left_out) for s in corpus.sources] == [(30, "train", 0)] * 2
    texts = {nano.tokenizer.decode(e.prompt, skip_special_tokens=True) for e in corpus.passes[0]}
    held = {d.prompt for task in tasks for split in ("test", "fit") for d in task.documents(split)}
    assert len(texts) == 60 and not texts & held
    assert all(e.target[-1] == nano.tokenizer.eos_token_id for e in corpus.passes[0])
    assert corpus.passes == data.gather(nano, tasks, 60, None, seed=5).passes
    assert corpus.passes != data.gather(nano, tasks, 60, None, seed=6).passes


def test_a_broken_generator_is_one_clear_line(backbone):
    task = ToyTask("toy", documents(20))
    task.generator = "dlbench.tasks.nano.generate.drew"
    with pytest.raises(DlbenchError, match=r"'toy': its generator dlbench\.tasks\.nano\.generate\.drew fails"):
        data.gather(backbone, [task], 5, 1, seed=0)


def texts(*lengths: int) -> list[Example]:
    return [Example([1] * (n - 1), [i + 2]) for i, n in enumerate(lengths)]


def test_steps_hold_about_as_many_tokens_as_asked_for_and_every_text_once_per_epoch():
    one = texts(*(3 + i % 7 for i in range(100)))
    corpus = data.Corpus((one, one), ())
    steps = data.steps(corpus, 40, seed=1)
    sizes = [sum(len(p) + len(t) for p, t in step) for step in steps]
    assert sum(sizes) == 2 * sum(len(p) + len(t) for p, t in one)
    assert all(20 <= size < 40 + 9 + 20 for size in sizes)  # an epoch's last step may be half a step, or one and a half
    half = len(list(itertools.takewhile(lambda n: n <= 100, itertools.accumulate(len(s) for s in steps))))
    first = list(itertools.chain(*steps[:half]))
    assert sorted(first) == sorted(one) and first != one
    assert steps == data.steps(corpus, 40, seed=1) != data.steps(corpus, 40, seed=2)


def test_a_crumb_joins_the_step_before_it():
    assert [len(s) for s in data.steps(data.Corpus((texts(10, 10, 10, 10, 9),), ()), 20, seed=0)] in ([2, 3], [2, 2, 1])
    assert [len(s) for s in data.steps(data.Corpus((texts(10, 10, 10, 10, 2),), ()), 20, seed=0)] != [2, 2, 1]
    assert [len(s) for s in data.steps(data.Corpus((texts(3, 3),), ()), 100, seed=0)] == [2]


def test_processes_share_a_step_and_forwards_keep_to_their_size():
    step = texts(9, 3, 5, 7, 8, 4, 6, 30)
    shares = [data.share(step, 16, process, 2) for process in (0, 1)]
    assert sorted(itertools.chain(*shares[0], *shares[1])) == sorted(step)
    lengths = [[[len(p) + len(t) for p, t in group] for group in groups] for groups in shares]
    assert lengths == [[[3, 5], [7], [9]], [[4, 6], [8], [30]]]  # a text longer than a forward goes alone
    assert data.share(step[:1], 16, process=1, processes=2) == []
