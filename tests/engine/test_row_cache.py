"""The cache against a plain reference: whatever rows leave, come back or owe, each keeps its own content."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.engine.kv import storage
from dlbench.engine.kv.policies.evict import Evict
from dlbench.engine.kv.policies.project import Project
from dlbench.engine.kv.row_cache import RowCache

DEPTH, HEADS, WIDTH, STATE = 3, 2, 4, 5
SPAN = 8


def content(row, position, layer, shape):
    """Numbers that tell the row, the position and the layer."""
    return torch.full(shape, float(row * 10_000 + position * 10 + layer))


def run(cache, layer, slots=None):
    """Write one position of a layer for some slots, and return the slots and what they may attend to."""
    chosen = list(range(cache.alive)) if slots is None else slots
    new = torch.stack([content(cache.order[s], cache.seen, layer, (HEADS, 1, WIDTH)) for s in chosen])
    if slots is None:
        return chosen, *cache.update(new, -new, layer)
    with cache.only(torch.tensor(slots)):
        if layer == 1:
            return chosen, *cache.update(new, -new, layer)
        entries, keys, values = zip(*cache.append(torch.cat((new, -new), 1)[:, :, 0], layer), strict=True)
    assert torch.cat([torch.arange(len(slots))[run] for run in entries]).tolist() == list(range(len(slots)))
    runs = 1 + sum(b - a > 1 for a, b in pairwise(slots))  # neighbours stand together
    assert len(entries) == (1 if storage._COPIED else runs)
    kept = cache.memory.layers[layer].untyped_storage().data_ptr()
    assert all((x.untyped_storage().data_ptr() == kept) is not bool(storage._COPIED) for x in keys)
    return chosen, torch.cat(keys), torch.cat(values)


def prefilled(rows, columns, length, layers=range(DEPTH)):
    cache = RowCache([None] * DEPTH, rows, length)
    cache.seat(np.arange(rows), np.full(rows, columns), columns)
    for layer in layers:
        new = torch.stack(
            [torch.cat([content(r, p, layer, (HEADS, 1, WIDTH)) for p in range(columns)], 1) for r in range(rows)]
        )
        cache.update(new, -new, layer)
    cache.advance(columns)
    cache.rewind(columns)
    return cache


@pytest.mark.parametrize("copied", [0, 1 << 40], ids=["views", "copies"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_keep_their_content(copied, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlbench.engine.kv.storage._COPIED", copied)
        keep_content(data)


def keep_content(data):
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    cache = prefilled(rows, columns, columns + 8)
    for _ in range(data.draw(st.integers(1, 2))):  # decode twice from the same prefix
        cache.rewind(columns)
        cache.companion = Project(cache, SPAN)
        written = {(layer, row): list(range(columns)) for layer in range(DEPTH) for row in range(rows)}
        owed = {layer: {} for layer in range(DEPTH)}
        alive = list(range(rows))
        for _ in range(data.draw(st.integers(0, 6))):
            kept = data.draw(st.lists(st.sampled_from(range(cache.alive)), min_size=1, unique=True).map(sorted))
            before = cache.order[: cache.alive].tolist()
            source = cache.keep(kept)
            assert sorted(source) == kept
            assert cache.order[: cache.alive].tolist() == [before[s] for s in source]
            alive = [row for row in alive if row in {before[s] for s in kept}]
            assert sorted(cache.order[: cache.alive].tolist()) == sorted(alive)
            for layer in range(DEPTH):
                step(data, cache, layer, written, owed[layer])
            cache.advance(1)


def step(data, cache, layer, written, owed):
    """One layer of one decode step: some slots run it and pay what they owe, the others owe."""
    slots = data.draw(st.lists(st.sampled_from(range(cache.alive)), unique=True).map(sorted))
    everyone = len(slots) == cache.alive
    if slots:
        due = cache.companion.due(layer, None if everyone else np.array(slots))
        expected = {at for at in owed if at[0] in {int(cache.order[s]) for s in slots}}
        found = set()
        if due is not None:
            assert due.slots.tolist() == due.rows.tolist()
            assert due.columns.tolist() == due.at.tolist()
            for slot, position, state in zip(due.slots.tolist(), due.columns.tolist(), due.states, strict=True):
                row = int(cache.order[slot])
                found.add((row, position))
                assert torch.equal(state, content(row, position, layer, (STATE,)))
                new = content(row, position, layer, (1, HEADS, 1, WIDTH))
                with cache.past(torch.tensor([slot]), torch.tensor([position])):
                    if layer % 2:  # the others are stored together, as a fused layer does
                        cache.update(new, -new, layer)
                        raise AssertionError("a fill ends the layer")
            assert len(found) == len(due.slots)
            if not layer % 2:
                places = zip(due.slots.tolist(), due.columns.tolist(), strict=True)
                each = [content(int(cache.order[slot]), at, layer, (HEADS, 1, WIDTH)) for slot, at in places]
                new = torch.stack(each)[:, :, 0]
                cache.memory.store(layer, torch.cat((new, -new), 1), due.places)
        assert found == expected
        for at in found:
            written[layer, at[0]].append(at[1])
            del owed[at]
        assert cache.companion.due(layer, None if everyone else np.array(slots)) is None  # paid once
        chosen, keys, values = run(cache, layer, None if everyone else slots)
        for i, slot in enumerate(chosen):
            row = int(cache.order[slot])
            written[layer, row].append(cache.seen)
            assert sorted(written[layer, row]) == list(range(cache.seen + 1))
            for position in range(cache.seen + 1):
                expected_kv = content(row, position, layer, (HEADS, WIDTH))
                assert torch.equal(keys[i, :, position], expected_kv)
                assert torch.equal(values[i, :, position], -expected_kv)
    rest = [s for s in range(cache.alive) if s not in slots]
    if rest:
        hidden = torch.stack([content(cache.order[s], cache.seen, layer, (1, STATE)) for s in range(cache.alive)])
        cache.companion.skipped(layer, None if not slots else np.array(rest), hidden)
        owed.update({(int(cache.order[s]), cache.seen): None for s in rest})


def test_positions_count_once_per_forward():
    cache = prefilled(2, 3, 8)
    assert (cache.get_seq_length(), cache.get_seq_length(2), cache.get_query_offset()) == (3, 3, 3)
    assert cache.get_mask_sizes(1) == (4, 0)
    for layer in range(DEPTH):
        run(cache, layer)
        assert cache.get_seq_length() == 3  # layers never count
    cache.advance(1)
    assert cache.get_seq_length() == 4
    with pytest.raises(AssertionError):
        cache.advance(5)  # beyond the memory


def test_living_rows_are_views_not_copies():
    cache = prefilled(3, 2, 6)
    cache.keep([0, 2])
    _, keys, _ = run(cache, 1)
    assert keys.shape == (2, HEADS, 3, WIDTH)
    assert keys.untyped_storage().data_ptr() == cache.memory.layers[1].untyped_storage().data_ptr()


def test_memory_is_taken_at_the_first_write():
    assert RowCache([None] * DEPTH, 4, 10).nbytes() == 0
    one = prefilled(4, 2, 10, layers=[1]).nbytes()
    assert one == 2 * 4 * HEADS * 10 * WIDTH * 4
    assert prefilled(4, 2, 10).nbytes() == DEPTH * one


def test_what_is_owed_is_let_go_at_a_rewind():
    cache = prefilled(2, 2, 6)
    cache.companion = Project(cache, SPAN)
    cache.companion.skipped(0, None, torch.ones(2, 1, STATE))
    cache.advance(1)
    cache.rewind(2)
    assert cache.companion is None


def test_skipped_states_move_with_their_rows():
    cache = prefilled(3, 2, 6)
    states = torch.stack([content(r, 2, 0, (STATE,)) for r in range(3)])
    policy = cache.companion = Project(cache, SPAN)
    policy.skipped(0, np.array([0, 2]), states[:, None])
    cache.advance(1)
    assert cache.keep([1, 2]) == [2, 1]  # row 2 moves into the hole
    due = policy.due(0, None)
    assert due.slots.tolist() == [0] and due.columns.tolist() == [2]
    assert torch.equal(due.states[0], states[2])


def test_an_error_inside_a_limited_layer_lifts_the_limit():
    cache = prefilled(2, 2, 6)
    with pytest.raises(RuntimeError), cache.only(torch.tensor([0])):
        raise RuntimeError
    assert run(cache, 0)[1].shape[0] == 2


def test_admitted_rows_that_are_dropped_are_forgotten_and_the_others_keep_their_content():
    """Their prompts stand elsewhere, so nothing is swapped: row 2 is copied over row 0, and stays where it was too."""
    prompts = prefilled(3, 2, 2)
    cache = RowCache([None] * DEPTH, 3, 8)
    cache.empty(3)  # one column more than the prompts have
    cache.admit(np.arange(3), prompts, np.arange(3), None)
    run(cache, 1)
    cache.advance(1)
    whole = cache.memory.layers[1]
    behind = whole[2].clone()
    assert cache.keep([1, 2]) == [2, 1] and cache.order[:2].tolist() == [2, 1]
    assert torch.equal(whole[2], behind)
    _, keys, values = run(cache, 1)
    assert torch.equal(values, -keys)
    for slot, row in enumerate((2, 1)):
        expected = [content(row, p, 1, (HEADS, WIDTH)) for p in (0, 1, 3, 4)]  # the new ones are told by their column
        assert torch.equal(keys[slot], torch.stack(expected, 1))
    with pytest.raises(AssertionError):
        cache.rewind(3)


def test_rows_enter_and_columns_move():
    """Prompts of 4 and 2 tokens stand right-aligned; the cache of 7 columns fills, and everything moves to the left."""
    prompts = prefilled(3, 4, 4)
    prompts.starts[:] = [0, 2, 1]
    cache = RowCache([None] * DEPTH, 2, 7)
    cache.empty(4)
    policy = cache.companion = Project(cache, SPAN)
    cache.admit(np.array([0, 1]), prompts, np.array([0, 1]), None)
    assert (cache.alive, cache.left, cache.padded) == (2, 0, True)
    for position in (4, 5):
        assert cache.steps.tolist() == [position - 4] * 2
        for layer in range(DEPTH):
            run(cache, layer)
        policy.skipped(0, np.array([1]), torch.ones(2, 1, STATE))
        cache.advance(1)
    assert policy.due(0, np.array([0])) is None
    cache.admit(np.array([0]), prompts, np.array([2]), {1, 2})  # row 0 has finished, row 2 takes its slot
    assert cache.order.tolist() == [2, 1] and cache.starts.tolist() == [3, 2] and cache.steps.tolist() == [0, 2]
    assert (cache.left, cache.seen, cache.get_seq_length(), cache.get_mask_sizes(1)) == (2, 6, 4, (5, 0))
    cache.make_room(3)
    assert cache.seen == 6  # there is room
    for layer in (1, 2):
        _, keys, values = run(cache, layer)
        assert keys.shape == (2, HEADS, 5, WIDTH) and torch.equal(values, -keys)
        assert torch.equal(keys[0, :, 1:4], torch.stack([content(2, p, layer, (HEADS, WIDTH)) for p in (1, 2, 3)], 1))
        assert torch.equal(keys[1, :, 0:2], torch.stack([content(1, p, layer, (HEADS, WIDTH)) for p in (2, 3)], 1))
    cache.advance(1)
    before = cache.memory.layers[1][:, :, 2:7].clone()
    cache.make_room(6)
    assert (cache.seen, cache.left, cache.starts.tolist()) == (6, 1, [2, 1])  # six columns are to stay
    assert torch.equal(cache.memory.layers[1][:, :, 1:6], before)
    due = policy.due(0, None)  # told by the row's own steps, so it finds them at their new columns
    assert due.slots.tolist() == [1, 1] and due.steps.tolist() == [0, 1] and due.columns.tolist() == [3, 4]


def test_what_is_hidden_moves_with_its_column():
    cache = prefilled(2, 3, 6)
    evicted = cache.companion = Evict(cache, SPAN)
    evicted.skipped(1, np.array([0]), torch.ones(2, 1, STATE))
    cache.seen, cache.starts[:] = 6, 2
    cache._bounds()
    cache.make_room(1)
    assert (cache.seen, cache.left) == (4, 0)
    assert evicted.visible(1, None).tolist() == [[True, False, True, True, True], [True] * 5]
    evicted.clear(np.array([0]))
    assert evicted.visible(1, None).all()
