"""A loaded backbone: its layers and sizes, its tokenizer, and what ends its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dlbench.data.thinking import Thinking
from dlbench.errors import DlbenchError, WeightsChangedError
from dlbench.models.checkpoint.checksum import WeightsGuard
from dlbench.models.end_tokens import Ends, ends_of
from dlbench.models.families import FAMILIES, Family, resolve, unsupported
from dlbench.models.recognition import Unrecognised, recognise
from dlbench.models.recurrence import leaking_padding, recurrence_of


@dataclass
class Backbone:
    """A loaded decoder, frozen and in evaluation mode."""

    name: str
    model: Any
    tokenizer: Any
    family: Family
    dtype: str
    """Dtype of the weights: one of DTYPES, or INT8; see `dlbench.models.catalog`."""
    sha256: str
    base_sha256: str
    weights_sha256: str = ""
    """Hash of the weights in memory as they were loaded, before any quantisation; empty for models made in memory."""
    source: str = ""
    """The name that was given to `load`."""
    stored_dtype: str = ""
    """Dtype that the checkpoint has its weights in; empty for models made in memory."""
    quantization: str | None = None
    """How the checkpoint's weights are quantised, such as "gguf Q4_1"; None where they are not."""
    adapter_of: str = ""
    """Name of the base model that the checkpoint, a PEFT adapter, was merged into; empty where it is none."""
    spread: bool = False
    """Whether layers are on several devices, or offloaded until they run."""
    _guard: WeightsGuard | None = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """The transformers model type, such as "llama"."""
        return str(self.model.config.model_type)

    @property
    def config(self) -> Any:
        """The configuration of the text decoder; a model that also sees or hears has others beside it."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def layers(self) -> nn.ModuleList:
        layers = resolve(self.model, self.family.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        return int(self.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the token ids."""
        return self.place(self.model.get_input_embeddings())

    def guard_weights(self) -> None:
        """Note the weights: `check_weights` compares them with what they are now."""
        self._guard = WeightsGuard(self.model)

    def check_weights(self, method: str, doing: str) -> None:
        """Check that a method's code has left the weights alone; nothing is checked before `guard_weights`.

        Args:
            method: its name.
            doing: what it was doing, such as "while it was fitted".

        Raises:
            WeightsChangedError: they are not what they were.
        """
        if self._guard is not None and (name := self._guard.changed()) is not None:
            raise WeightsChangedError(
                f"method {method!r} changed weights of model {self.name!r} {doing} ({name}): nothing that came of it "
                "is kept, and other methods cannot run on what is left; run again without it"
            )

    def place(self, module: nn.Module) -> torch.device:
        """The device that a module runs on; accelerate's hook moves offloaded weights there."""
        hook = getattr(module, "_hf_hook", None)
        if (device := getattr(hook, "execution_device", None)) is not None:
            return torch.device(device)
        return next(module.parameters()).device

    @property
    def context(self) -> int:
        """Maximum number of positions.

        With dynamic scaling of rotary angles the configuration gives the length in training, and a factor extends it.
        Where layers attend within a chunk of the text (Llama 4), a text must fit one chunk; and it must be shorter than
        the scale by whose multiples they sharpen attention, since they take columns for positions.
        """
        config = self.config
        given = getattr(config, "rope_parameters", None) or {}
        by_kind = [x for x in given.values() if isinstance(x, dict)] or [given]
        factor = max(float(x["factor"]) if x.get("rope_type") == "dynamic" else 1.0 for x in by_kind)
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None) or 1 << 30
        chunk = sharpened = 1 << 60
        if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
            chunk = int(config.attention_chunk_size)
        if getattr(config, "attn_temperature_tuning", False):
            sharpened = int(config.floor_scale) - 1
        return int(min(most * factor, chunk, sharpened))

    @property
    def id(self) -> str:
        """Identifies the backbone within a run."""
        return f"{self.source} {self.dtype}"

    @property
    def precision(self) -> str:
        """Dtype of states, keys and values: the dtype of the weights, unless these are int8."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def cache_bytes(self) -> int:
        """Bytes of one position's keys and values in one layer; in the largest, where layers differ."""
        size = next(self.model.parameters()).element_size()
        if shapes := self.family.key_values:
            return int(max(2 * shape.heads * max(shape.keys, shape.values) for shape in shapes) * size)
        config = self.config
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        if getattr(config, "multi_query", False) and not config.new_decoder_architecture:  # Falcon, the first ones
            kv_heads = 1
        return int(2 * kv_heads * width * size)

    @property
    def recurrent(self) -> bool:
        """Whether some layer keeps a state from token to token."""
        return any(recurrence_of(self.family, layer) is not None for layer in self.layers)

    @property
    def state_bytes(self) -> int:
        """Bytes of one text's states in all recurrent layers, in float32, which some families keep them in."""
        return 4 * sum(of.floats for layer in self.layers if (of := recurrence_of(self.family, layer)) is not None)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; the tokenizer may have more tokens, or fewer."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def check_ids(self, ids: Sequence[int], what: str) -> None:
        """Check that the model has an embedding for every token id.

        Args:
            ids: token ids.
            what: their text, for the message.

        Raises:
            DlbenchError: it has none for one of them.
        """
        if (most := max(ids, default=0)) < self.vocabulary:
            return
        named = getattr(self.tokenizer, "convert_ids_to_tokens", lambda id_: id_)
        raise DlbenchError(
            f"{what} needs token {named(most)!r}, number {most}, and the embedding of model {self.name!r} has "
            f"{self.vocabulary} rows: take the tokenizer that it was trained with, or a model with a row for the token"
        )

    @property
    def start(self) -> list[int]:
        """Token before a text without a context: the begin-of-text token, or else the end-of-text token.

        Raises:
            DlbenchError: the tokenizer has neither.
        """
        ids = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        if (start := next((id_ for id_ in ids if id_ is not None), None)) is None:
            raise DlbenchError(
                f"the tokenizer of model {self.name!r} has no token that begins or ends a text, and an answer without "
                "a context needs one before it: give it a bos_token"
            )
        return [start]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text with the tokenizer's special tokens, but no second begin-of-text token."""
        begin = getattr(self.tokenizer, "bos_token", None)
        if begin and text.startswith(begin):
            return self.plain(text)
        return list(self.tokenizer(text)["input_ids"])

    def plain(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether token ids begin with the begin-of-text token."""
        begin = self.tokenizer.bos_token_id
        return begin is not None and list(ids[:1]) == [begin]

    def shorten(self, ids: list[int], room: int) -> list[int]:
        """Keep the last `room` token ids, and a begin-of-text token at the front."""
        kept = int(self.begins(ids) and room > 0)
        return ids[:kept] + ids[len(ids) - room + kept :]

    @property
    def ends(self) -> Ends:
        """End tokens of a text."""
        return ends_of(self.model, self.tokenizer)

    @property
    def eos(self) -> frozenset[int]:
        """Token ids that end a text."""
        return self.ends.ids

    def text(self, tokens: Sequence[int], thinking: Thinking | None = None) -> str:
        """Decode generated tokens, without special tokens and cut where an end token is spelled out in the text.

        Args:
            tokens: the generated tokens.
            thinking: how the model thinks; the marks around its thinking are kept.
        """
        if thinking is not None:
            return self.ends.cut(thinking.text(self.tokenizer, tokens))
        return self.ends.cut(str(self.tokenizer.decode(tokens, skip_special_tokens=True)))


def wrap(
    model: Any, tokenizer: Any = None, *, name: str = "local", sha256: str = "", base_sha256: str = ""
) -> Backbone:
    """Make a Backbone from a loaded transformers model, frozen and in evaluation mode.

    Raises:
        DlbenchError: the architecture is not supported.
    """
    kind = model.config.model_type
    try:
        family = FAMILIES[kind] if kind in FAMILIES else recognise(model)
    except Unrecognised as reason:
        raise DlbenchError(unsupported(name, kind, str(reason))) from reason
    for index, layer in enumerate(resolve(model, family.layers)):
        if projection := leaking_padding(family, layer):
            raise DlbenchError(
                f"model {name!r} cannot be read in batches: {projection} of layer {index} has a bias, so the padding "
                "before shorter texts would enter their states; only models without this bias are supported"
            )
    model.eval().requires_grad_(False)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return Backbone(name, model, tokenizer, family, dtype, sha256, base_sha256 or sha256)
