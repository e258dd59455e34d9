"""Rotary angles that depend on how long a text has become: every token has those of its own row.

transformers makes the angles of a whole batch by the longest text in it, and its module keeps some of that for the next
forward. So a text would depend on its neighbours, and on what ran before. Kinds of angles that do depend on the length:

    longrope   one set of frequencies up to the original context, another beyond it
    dynamic    frequencies stand still up to the context of the training, and change with every length beyond it

A token's angles are those of the length that its text had when the token was read: all tokens of a prompt have those of
the whole prompt, a decoded token those of the text up to itself. They stay when the text grows. One family reads the
whole text again instead, where it outgrows the original context (`Family.reads_again`); see `Run` for what we do there.

Shape letters: R rows, N positions, D rotary width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve

_MORE = 256
"""Positions by which a table of angles grows at least."""


def module_of(backbone: Backbone) -> Any:
    """The module that makes a model's rotary angles; None where it has none."""
    return getattr(resolve(backbone.model, backbone.family.layers.rpartition(".")[0]), "rotary_emb", None)


def copied(module: Any) -> Any:
    """A copy of such a module that shares no state with it, without accelerate's hooks: these may hold all weights."""
    made = copy.copy(module)
    state = vars(made)
    for name in ("forward", "_old_forward", "_hf_hook"):
        state.pop(name, None)
    state["_buffers"] = {name: buffer.clone() for name, buffer in module._buffers.items()}
    return made


def varies(kind: str) -> bool:
    """Whether rotary angles of a type (transformers' `rope_type`) depend on the length of the text."""
    return kind == "longrope" or "dynamic" in kind


def types_of(module: Any) -> dict[tuple[str, ...], str]:
    """Types of a module's angles: one, or one per kind of layer, by what the module must be told."""
    given = getattr(module, "rope_type", "default")
    return {(layer,): kind for layer, kind in given.items()} if isinstance(given, Mapping) else {(): str(given)}


class RowAngles:
    """Angles by each row's own length; works on a copy of the model's module, which keeps nothing from call to call."""

    def __init__(self, backbone: Backbone, module: Any) -> None:
        """Prepare; see `of`."""
        self._module = copied(module)
        self._types = types_of(module)
        self._tables: dict[Any, tuple[Tensor, ...]] = {}
        self._reads, self._least = False, 0
        switches = [self._original(kind) for kind, name in self._types.items() if name == "longrope"]
        self.turn = min(switches) if switches and backbone.family.reads_again else None
        """Most tokens of a text that may be read one after the other: before the next the text is read again."""

    @classmethod
    def of(cls, backbone: Backbone) -> RowAngles | None:
        """Those of a model; None where its angles depend on the position alone."""
        module = module_of(backbone)
        return cls(backbone, module) if any(map(varies, types_of(module).values())) else None

    def begin(self, *, reads: bool, least: int = 0) -> None:
        """A forward starts.

        Args:
            reads: whether whole texts are read; otherwise tokens are added one after the other to what is in a cache.
            least: length that texts that are read count as, where they are shorter.
        """
        self._reads, self._least = reads, least

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, ...]:
        """Stand in for the `forward` of the model's module: [R, N, D] each."""
        kind = () if layer_type is None else (layer_type,)
        if self._reads:
            lengths = (position_ids.amax(-1, keepdim=True) + 1).clamp_(min=self._least)
            return self.at(x, position_ids, lengths.expand_as(position_ids), kind)
        return tuple(table[position_ids] for table in self.table(x, int(position_ids.max()), kind))

    def table(self, like: Tensor, last: int, kind: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Angles of decoded tokens by position, up to the last one that is needed, and more: [positions, D] each."""
        key = kind, like.dtype, like.device
        known = self._tables.get(key, ())
        count = len(known[0]) if known else 0
        if count <= last:
            positions = torch.arange(count, last + _MORE, device=like.device)[None]
            made = [x[0] for x in self.at(like, positions, positions + 1, kind)]
            known = tuple(torch.cat(pair) for pair in zip(known, made, strict=True)) if known else tuple(made)
            self._tables[key] = known
        return known

    def at(self, like: Tensor, positions: Tensor, lengths: Tensor, kind: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Angles of tokens that were read when their texts were so long: [R, N, D] each.

        Args:
            like: has the dtype and the device.
            positions: [R, N].
            lengths: of each token's text, itself included, [R, N].
            kind: what the module must be told beside the positions.
        """
        lengths = self._telling(lengths, kind)
        several = lengths.unique().tolist()  # type: ignore[no-untyped-call]
        if len(several) == 1:
            return self._made(like, positions, several[0], kind)
        found: tuple[Tensor, ...] = ()
        for length in several:
            those = lengths == length
            made = self._made(like, positions[those], length, kind)
            found = found or tuple(x.new_empty(*positions.shape, x.shape[-1]) for x in made)
            for into, x in zip(found, made, strict=True):
                into[those] = x
        return found

    def _telling(self, lengths: Tensor, kind: tuple[str, ...]) -> Tensor:
        """The same number for all lengths that give the same angles: one of these lengths; 0 where it tells nothing."""
        if self._types[kind] == "longrope":
            original = self._original(kind)
            return torch.where(lengths > original, original + 1, original)
        return lengths.clamp(min=self._module.original_max_seq_len) if varies(self._types[kind]) else lengths * 0

    def _made(self, like: Tensor, positions: Tensor, length: int, kind: tuple[str, ...]) -> tuple[Tensor, ...]:
        """What a new module makes of positions of one text of this length, of any shape: [*positions, D] each."""
        several = positions.flatten()
        if length:  # the module looks at the last position
            self._renew(kind)
            several = torch.cat((several, several.new_full((1,), length - 1)))
        made = self._module(like, several[None], *kind)
        return tuple(x[0, : positions.numel()].view(*positions.shape, -1) for x in made)

    def _renew(self, kind: tuple[str, ...]) -> None:
        """Let the module forget which lengths it has met; of longrope it keeps none."""
        module, prefix = self._module, "".join(f"{layer}_" for layer in kind)
        if self._types[kind] != "longrope":
            module.register_buffer(f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

    def _original(self, kind: tuple[str, ...]) -> int:
        """The original context: most tokens of a text that has the first set of frequencies."""
        given = self._module.config.rope_parameters
        return int((given[kind[0]] if kind else given)["original_max_position_embeddings"])
