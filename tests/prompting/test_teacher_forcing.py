"""Teacher forcing: what an example is, which positions are decode forwards, and gates that leave no trace."""

import pytest
import tiny_models
import torch
import toy_task

from dlbench.data.document import Document
from dlbench.models.backbone import wrap
from dlbench.models.layer_patch import shadowed, state_of, with_state
from dlbench.prompting.teacher_forcing import IGNORED, Batch, Example, Parted, example


@pytest.fixture(scope="module")
def backbone():
    return wrap(tiny_models.build("llama", depth=3), toy_task.Characters())


def test_an_example_is_the_prompt_and_a_space_before_the_reference(backbone):
    document = Document("a", "AB", ("CD ", "EF"), 4, (), 0, None, "fit")
    assert example(backbone, document, 0) == ([33, 34], [0, 35, 36])
    assert example(backbone, document, 1) == ([33, 34], [0, 37, 38])
    ending = wrap(tiny_models.build("llama", depth=2), toy_task.Characters())
    ending.model.generation_config.eos_token_id = [9, 7]
    assert example(ending, document, 0).target == [0, 35, 36, 9]  # the first that is named
    ending.tokenizer.eos_token_id = 11  # an end token of the tokenizer's own comes before those
    assert example(ending, document, 0).target == [0, 35, 36, 11] and ending.eos == {7, 9, 11}
    ending.model.generation_config.eos_token_id = 8
    assert example(ending, document, 0).target == [0, 35, 36, 11] and ending.eos == {8, 11}
    ending.tokenizer.eos_token_id = ending.model.generation_config.eos_token_id = None
    assert example(ending, document, 0).target == [0, 35, 36] and ending.eos == frozenset()


def test_a_text_is_cut_to_the_context(backbone):
    long = Document("a", "A" * 94, ("BCDE",), 4, (), 0, None, "fit")
    assert len(example(backbone, long, 0).target) == tiny_models.CONTEXT - 94
    longer = Document("b", "A" * 99, ("B" * 50,), 4, (), 0, None, "fit")
    assert example(backbone, longer, 0).target == []


def test_decode_forwards_are_the_targets_that_predict_another():
    batch = Batch.of([Example([5, 6], [7, 8, 9]), Example([4], [3])])
    no = IGNORED
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [4, 3, 0, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.labels.tolist() == [[no, no, 7, 8, 9], [no, 3, no, no, no]]
    assert batch.routed.tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_texts_are_parted_where_decoding_begins():
    batch = Parted.of([Example([5, 6], [7, 8, 9]), Example([4], [3])])
    assert batch.prompt.tolist() == [[5, 6], [0, 4]] and batch.prompt_mask.tolist() == [[1, 1], [0, 1]]
    assert batch.ids.tolist() == [[7, 8], [0, 0]] and batch.mask.tolist() == [[1, 1], [0, 0]]
    assert batch.labels.tolist() == [[8, 9], [IGNORED, IGNORED]]


def test_shadowed_layers_are_as_before_whatever_happens(backbone):
    def halved(index, forward, hidden, *args, **kwargs):
        given = forward(hidden, *args, **kwargs)
        return with_state(given, state_of(given) / 2)

    ids = torch.tensor([[5, 6, 7]])
    plain = backbone.model(ids, use_cache=False).logits
    with pytest.raises(KeyError), shadowed({1: backbone.layers[1]}, halved):
        assert not torch.equal(backbone.model(ids, use_cache=False).logits, plain)
        raise KeyError
    assert not any("forward" in vars(module) for module in backbone.model.modules())
    assert torch.equal(backbone.model(ids, use_cache=False).logits, plain)


def test_a_state_is_replaced_in_whatever_form_it_came():
    state, other = torch.zeros(1), torch.ones(1)
    assert state_of((state, "weights")) is state and with_state((state, "weights"), other) == (other, "weights")
    assert state_of(state) is state and with_state(state, other) is other
