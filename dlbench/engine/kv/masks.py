"""Attention masks, and layer arguments, of some rows or of past tokens.

Shape letters: M past tokens.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dlbench.engine.kv.past_tokens import Past

MaskForm = Literal["additive", "visible", "hidden"]
"""Whether a layer's mask is added to scores, or is True where a key is visible, or where it is hidden."""
PADDING_ONLY = "padding_only"
"""Argument of a fused layer: whether its mask hides nothing but the columns before each row."""


def take(x: Any, rows: Tensor, batch: int) -> Any:
    """Select rows of a layer's argument: a first dimension of 1 broadcasts, tuples and dicts recurse.

    A first dimension of rows × heads (Bloom's alibi) is unfolded.
    """
    if isinstance(x, Tensor):
        if not x.ndim or x.shape[0] == 1 < batch:
            return x
        if x.shape[0] == batch:
            return x[rows]
        if x.ndim > 2 and x.shape[0] % batch == 0:
            return x.view(batch, -1, *x.shape[1:])[rows].flatten(0, 1)
        return x
    if isinstance(x, (tuple, list)):
        return type(x)(take(y, rows, batch) for y in x)
    if isinstance(x, dict):
        return {k: take(y, rows, batch) for k, y in x.items()}
    return x


def hiding(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive mask of a boolean one, of the same shape: 0 where True, the dtype's minimum where False."""
    # both numbers are made on the device: a CUDA graph cannot fetch one from the host
    seen, hidden = (torch.full((), x, dtype=dtype, device=visible.device) for x in (0.0, torch.finfo(dtype).min))
    return torch.where(visible, seen, hidden)


def add_to_mask(mask: Any, visible: Tensor, *, form: MaskForm, dtype: torch.dtype) -> Tensor:
    """Hide more positions in a layer's mask.

    Args:
        mask: [.., 1, queries, keys], boolean or additive; None hides nothing.
        visible: [rows, keys], or [rows, 1, queries, keys]; positions that are False are hidden.
        form: of the layer's masks.
        dtype: of a new additive mask.
    """
    visible = visible[:, None, None, :] if visible.ndim == 2 else visible
    if form == "hidden":
        return ~visible if mask is None else mask | ~visible
    if mask is None and form == "visible":
        return visible
    if mask is None:
        mask = torch.zeros((), dtype=dtype, device=visible.device)
    if mask.dtype == torch.bool:
        return mask & visible  # type: ignore[no-any-return]
    return torch.where(visible, mask, torch.finfo(mask.dtype).min)


def past_mask(
    mask: Any, past: Past, start: Tensor, window: int | None, seen: range, batch: int, *, form: MaskForm
) -> Tensor:
    """The mask of past tokens over some columns: what each saw when it was new, [M, 1, 1, len(seen)].

    Where the layer has no window, the mask of the present tokens is kept too: it may hold a bias (alibi).

    Args:
        mask: of the present tokens, beginning at the first of the columns.
        past: M tokens.
        start: column of the first token of each one's row, [M].
        window: how many positions a token attends to; None for all.
        seen: the columns.
        batch: rows of the present forward.
        form: of the layer's masks.
    """
    columns = torch.arange(seen.start, seen.stop, device=past.at.device)
    visible = (columns >= start[:, None]) & (columns <= past.at[:, None])
    if window is not None:
        visible &= columns > past.at[:, None] - window
    base = take(mask, past.rows, batch)[..., : len(seen)] if window is None and mask is not None else None
    return add_to_mask(base, visible, form=form, dtype=past.states.dtype)
