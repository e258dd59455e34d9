"""Rotary angles: of decoded tokens by position, and of texts whose angles depend on their length.

transformers computes the angles of a whole batch from its longest text, and its module keeps some of that for the next
forward. A text would then depend on its neighbours and on what ran before; `RowAngles` gives every row its own angles.
Types of angles that depend on the length:

    longrope   one set of frequencies up to the original context, another beyond it
    dynamic    constant frequencies up to the training context, beyond it others for every length

A token's angles are those of the length that its text had when the token was read: all tokens of a prompt have those of
the whole prompt, a decoded token has those of the text up to itself. They stay when the text grows. One family reads
the whole text again when it outgrows the original context (`Family.reads_again`); `DecodeLoop` says what is done then.

Shape letters: R rows, N positions, D rotary width, M past tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from dlbench.engine.kv.storage import Slots, on
from dlbench.models.attention import depends_on_length, rope_types, rotary_module, stateless_copy
from dlbench.models.backbone import Backbone

_MORE = 256
"""Least number of positions by which a table of angles grows."""


def signed(sin: Tensor) -> Tensor:
    """Negate the first half of sines [.., R]: so they multiply the other half of a head when it is rotated."""
    first, second = sin.chunk(2, -1)
    return torch.cat((-first, second), -1)


@final
class RowAngles:
    """Angles by each row's own length, made with a copy of the model's module that keeps no state between calls."""

    def __init__(self, backbone: Backbone, module: Any) -> None:
        """Prepare; see `of`."""
        self._module = stateless_copy(module)
        self._types = rope_types(module)
        self._tables: dict[Any, tuple[Tensor, ...]] = {}
        self._reads, self._least = False, 0
        switches = [self._original(kind) for kind, name in self._types.items() if name == "longrope"]
        self.reread_after = min(switches) if switches and backbone.family.reads_again else None
        """Most tokens of a text before the whole text is read again; None where it never is."""

    @classmethod
    def of(cls, backbone: Backbone) -> RowAngles | None:
        """Make those of a model; None where its angles depend on the position alone."""
        module = rotary_module(backbone)
        return cls(backbone, module) if any(map(depends_on_length, rope_types(module).values())) else None

    def begin(self, *, reads: bool, least: int = 0) -> None:
        """Start a forward.

        Args:
            reads: whether whole texts are read; otherwise single tokens are added to a cache.
            least: length that shorter texts count as when they are read.
        """
        self._reads, self._least = reads, least

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, ...]:
        """Replace the `forward` of the model's module: [R, N, D] each."""
        kind = () if layer_type is None else (layer_type,)
        if self._reads:
            lengths = (position_ids.amax(-1, keepdim=True) + 1).clamp_(min=self._least)
            return self.at(x, position_ids, lengths.expand_as(position_ids), kind)
        return tuple(table[position_ids] for table in self.table(x, int(position_ids.max()), kind))

    def table(self, like: Tensor, last: int, kind: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Angles of decoded tokens by position, at least up to position `last`: [positions, D] each."""
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
        """Angles of tokens, given the length of the text when each was read: [R, N, D] each.

        Args:
            like: has the dtype and the device.
            positions: [R, N].
            lengths: of each token's text, itself included, [R, N].
            kind: extra arguments of the module.
        """
        lengths = self._distinct(lengths, kind)
        several = lengths.unique().tolist()  # type: ignore[no-untyped-call]
        if len(several) == 1:
            return self._made(like, positions, several[0], kind)
        angles: tuple[Tensor, ...] = ()
        for length in several:
            those = lengths == length
            made = self._made(like, positions[those], length, kind)
            angles = angles or tuple(x.new_empty(*positions.shape, x.shape[-1]) for x in made)
            for into, x in zip(angles, made, strict=True):
                into[those] = x
        return angles

    def _distinct(self, lengths: Tensor, kind: tuple[str, ...]) -> Tensor:
        """One length for all that give the same angles; 0 where angles do not depend on the length."""
        if self._types[kind] == "longrope":
            original = self._original(kind)
            return torch.where(lengths > original, original + 1, original)
        return (
            lengths.clamp(min=self._module.original_max_seq_len)
            if depends_on_length(self._types[kind])
            else lengths * 0
        )

    def _made(self, like: Tensor, positions: Tensor, length: int, kind: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Angles from a module that has only met this length, for positions of any shape: [*positions, D] each."""
        several = positions.flatten()
        if length:  # the module looks at the last position
            self._renew(kind)
            several = torch.cat((several, several.new_full((1,), length - 1)))
        made = self._module(like, several[None], *kind)
        return tuple(x[0, : positions.numel()].view(*positions.shape, -1) for x in made)

    def _renew(self, kind: tuple[str, ...]) -> None:
        """Make the module forget the lengths that it has met; for longrope it keeps none."""
        module, prefix = self._module, "".join(f"{layer}_" for layer in kind)
        if self._types[kind] != "longrope":
            module.register_buffer(f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

    def _original(self, kind: tuple[str, ...]) -> int:
        """The original context: most tokens of a text that uses the first set of frequencies."""
        given = self._module.config.rope_parameters
        return int((given[kind[0]] if kind else given)["original_max_position_embeddings"])


@final
class Angles:
    """Tables of rotary angles of decoded tokens, by position; layers of one type share a table.

    Rows can share them too, also where angles depend on the length: the text of a new token is its position plus one.
    """

    def __init__(self, kinds: Sequence[str], length: int) -> None:
        """Prepare.

        Args:
            kinds: type of each layer.
            length: most positions.
        """
        self._kinds, self._length = kinds, length
        self._tables: dict[str, tuple[Tensor, ...]] = {}
        self.firsts = frozenset(kinds.index(kind) for kind in kinds)
        """The first layer of each type, at which a forward's angles are to be noted."""

    def note(self, layer: int, kwargs: dict[str, Any], positions: Slots) -> None:
        """Store the angles among a layer's arguments for new tokens at these positions, [rows]."""
        kind, angles = self._kinds[layer], kwargs.get("position_embeddings")
        if angles is None:
            return
        if isinstance(angles, Tensor):  # cosines and sines as one complex number
            angles = (angles,)
        if kind not in self._tables:
            self._tables[kind] = tuple(a.new_zeros(self._length, a.shape[-1]) for a in angles)
        chosen = int(positions[0]) if len(positions) == 1 else on(positions, angles[0].device)
        for table, a in zip(self._tables[kind], angles, strict=True):
            table[chosen] = a[:, 0] if a.shape[0] == len(positions) else a[:, 0].expand(len(positions), -1)

    def of(self, layer: int, positions: Slots, *, run: bool) -> tuple[Tensor, ...]:
        """Angles of single tokens: each [M, 1, R].

        Args:
            layer: gives the type.
            positions: of the tokens, [M].
            run: whether positions are consecutive, so that a view will do.
        """
        tables = self._tables[self._kinds[layer]]
        chosen = slice(int(positions[0]), int(positions[-1]) + 1) if run else on(positions, tables[0].device)
        return tuple(table[chosen][:, None] for table in tables)
