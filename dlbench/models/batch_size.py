"""How many rows are decoded together: by the free memory, and where memory sets no limit."""

from __future__ import annotations

from dlbench.models.backbone import Backbone
from dlbench.models.experts import experts_of

SHARE = 0.5
"""Share of the free memory that a wave may take; the rest is for what `row_bytes` leaves out."""
WAITING = 3
"""Prefilled rows that wait, per row that is being decoded, where memory sets no limit."""


def most_slots(device: str) -> int:
    """Rows decoded together where memory sets no limit: 48 on a CPU, 256 elsewhere."""
    return 48 if device == "cpu" else 256


def most_rows(slots: int, documents: int, processes: int) -> int:
    """Rows of a wave where memory sets no limit, at most a process's equal share of the documents."""
    return min((1 + WAITING) * slots, -(-documents // processes))


def row_bytes(backbone: Backbone, prompt: int, new: int, layers: int) -> int:
    """Bytes that one row needs: what it caches, and the largest intermediate states of its prefill.

    Recurrent states count twice: a wave keeps a copy for its next run.

    Args:
        backbone: the model.
        prompt: prompt tokens, padding included.
        new: most new tokens.
        layers: layers that keep keys and values.
    """
    config = backbone.config
    size = next(backbone.model.parameters()).element_size()
    widest = max(_widest(backbone, index) for index in range(backbone.depth))
    forward = 4 * widest * prompt * size  # of one layer: gate, up projection and product of the feed-forward, and slack
    if config._attn_implementation == "eager":
        forward += 3 * config.num_attention_heads * prompt**2 * 4  # scores, softmax in float32, and slack
    return int(layers * backbone.cache_bytes * (prompt + new) + 2 * backbone.state_bytes + forward)


def _widest(backbone: Backbone, index: int) -> int:
    """Elements of the widest state of one token in a layer."""
    experts = experts_of(backbone, index)
    return max(0 if experts is None else experts.width, *(max(p.shape) for p in backbone.layers[index].parameters()))


def rows_that_fit(
    backbone: Backbone, prompt: int, new: int, layers: int, slots: int, free_bytes: int, *, copied: bool = False
) -> int:
    """Rows of a wave that stay within SHARE of the free memory; at least one, which runs out of memory if it must.

    Args:
        backbone: the model.
        prompt: prompt tokens, padding included.
        new: most new tokens.
        layers: layers that keep keys and values.
        slots: most rows decoded together; where more fit, the others wait prefilled.
        free_bytes: free memory.
        copied: whether decoding copies the prompts' keys and values even where all rows are decoded at once.
    """
    budget, waiting = int(SHARE * free_bytes), max(1, layers * backbone.cache_bytes * prompt + backbone.state_bytes)
    copy = row_bytes(backbone, prompt, 2 * new, layers)  # the copy has room for twice the new tokens
    together = max(1, budget // max(1, copy + waiting if copied else row_bytes(backbone, prompt, new, layers)))
    if together <= slots:
        return together
    # decoding a larger wave copies in any case
    return max(slots, (budget - slots * copy) // waiting)
