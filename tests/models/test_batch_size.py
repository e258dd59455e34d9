"""How many rows are decoded together."""

from functools import partial

import pytest
import tiny_models
import torch
from transformers import DynamicCache

from dlbench.models import batch_size


def test_a_wave_takes_a_share_of_the_free_memory():
    backbone = tiny_models.backbone("llama", depth=5)

    def fit(share, slots=1000, copied=False):
        return batch_size.rows_that_fit(backbone, 9, 4, 5, slots, int(share / batch_size.SHARE), copied=copied)

    row, moving = (batch_size.row_bytes(backbone, 9, new, 5) for new in (4, 8))
    waiting = 5 * 9 * backbone.cache_bytes
    assert fit(10.5 * row) == 10
    assert fit(0.5 * row) == fit(0) == 1  # one row is always tried
    # beyond the slots rows wait with their prompts, where these and the copies fit
    assert fit(10.5 * row, slots=10) == fit(10 * moving, slots=10) == fit(10 * moving + 9 * waiting, slots=10) == 10
    assert fit(10 * moving + 12.5 * waiting, slots=10) == 12
    # prompts that are written over are copied, however few they are
    both = partial(fit, copied=True)
    assert both(10.5 * (moving + waiting)) == 10 and both(0.5 * moving) == 1
    assert both(10 * moving + 20.5 * waiting, slots=10) == 20


@pytest.mark.parametrize(
    ("slots", "documents", "processes", "rows"),
    [
        (48, 500, 1, 192),
        (48, 32, 1, 32),
        (48, 33, 2, 17),  # every process has something to do
        (256, 500, 4, 125),
        (1, 9, 1, 4),
    ],
)
def test_without_a_limit_by_memory(slots, documents, processes, rows):
    assert batch_size.most_rows(slots, documents, processes) == rows


def test_more_rows_together_where_there_is_an_accelerator():
    assert batch_size.most_slots("cpu") == 48 and batch_size.most_slots("cuda") == batch_size.most_slots("mps") == 256


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_keys_and_values_of_every_family_are_foreseen(family, dtype):
    backbone = tiny_models.backbone(family, depth=5, dtype=dtype)
    cache = DynamicCache()  # without windows: what the engine keeps
    with torch.inference_mode():
        backbone.model(torch.arange(2, 9)[None], past_key_values=cache, use_cache=True)
    held = sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))
    if family != "falcon-40b":
        assert held == 5 * 7 * backbone.cache_bytes
    needed = batch_size.row_bytes(backbone, 7, 4, 5)
    assert needed > held * 11 / 7
    assert needed - batch_size.row_bytes(backbone, 7, 4, 2) == 3 * 11 * backbone.cache_bytes
    assert batch_size.row_bytes(backbone, 14, 4, 5) > needed < batch_size.row_bytes(backbone, 7, 8, 5)


def test_a_token_needs_room_in_each_of_its_experts():
    """Two experts, whose gate and up projection give 96 values each; a dense layer has 48 at once."""
    dense, mixture = (tiny_models.backbone(family) for family in ("llama", "mixtral"))
    assert batch_size.row_bytes(mixture, 9, 4, 0) == 2 * 2 * batch_size.row_bytes(dense, 9, 4, 0) == 4 * 192 * 9 * 4


def test_eager_attention_needs_the_square_of_the_prompt():
    eager, sdpa = (tiny_models.backbone("llama", attention=a) for a in ("eager", "sdpa"))
    more = [batch_size.row_bytes(eager, n, 4, 5) - batch_size.row_bytes(sdpa, n, 4, 5) for n in (10, 20)]
    assert more[0] > 0 and more[1] == 4 * more[0]
