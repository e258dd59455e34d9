"""What a model's generation_config asks for: what is done of it, what is set aside, and what is refused.

Full depth is `generate(do_sample=False)` of the model as it is published, which is also what lm-eval's `hf` model runs.
So what changes the likeliest token, or ends a text, is done, through transformers' own processors. What greedy decoding
leaves without a meaning is set aside: it is named in the records, and told where somebody may have counted on it. And
what would be another way of decoding is refused, since a text that the model would not have written is no baseline.

    done      repetition_penalty, encoder_repetition_penalty, no_repeat_ngram_size, encoder_no_repeat_ngram_size,
              bad_words_ids, sequence_bias, suppress_tokens, begin_suppress_tokens, forced_bos_token_id,
              forced_eos_token_id, min_length, min_new_tokens, exponential_decay_length_penalty, remove_invalid_values,
              renormalize_logits, watermarking_config (of green tokens), stop_strings (in what is written), eos_token_id
    aside     do_sample, and with it temperature, top_k, top_p, min_p, top_h, typical_p, epsilon_cutoff, eta_cutoff;
              num_return_sequences; max_time; prompt_lookup_num_tokens, assistant_early_exit, use_mtp, speculation_type,
              which write the same text in another time; cache_implementation = quantized
    silently  max_length, max_new_tokens (the task's limit rules), other caches, how a forward is compiled, and what
              `generate` returns beside the text: aside too, but nobody is told
    refused   num_beams, constraints, force_words_ids, penalty_alpha with top_k, dola_layers, guidance_scale (a second
              forward per token), token_healing (another prompt), watermarking_config of SynthID (a memory of its own)
    nothing   what `generate` does not look at either: settings of beams where there is one beam, of sampling where
              nothing is drawn, and entries that transformers does not know

Lengths count from the row's own prompt, padding never counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlbench.errors import DlbenchError

PROCESSED: dict[str, Any] = {
    "sequence_bias": None,
    "encoder_repetition_penalty": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "watermarking_config": None,
    "renormalize_logits": False,
}
"""What transformers' processors do, each with the value that changes nothing."""
_STOPS = "stop_strings"
_SAMPLING: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
_ASIDE: dict[str, Any] = {
    "num_return_sequences": 1,
    "max_time": None,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "use_mtp": False,
    "speculation_type": None,
}
_SILENT: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "cache_implementation": None,
    "cache_config": None,
    "max_cache_len": None,
    "use_cache": True,
    "low_memory": None,
    "prefill_chunk_size": None,
    "compile_config": None,
    "disable_compile": None,
    "continuous_batching_config": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "return_dict_in_generate": False,
}
_ELSEWHERE = frozenset((
    "eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "do_sample",
    "num_beams", "constraints", "force_words_ids", "penalty_alpha", "dola_layers", "guidance_scale", "token_healing",
    "num_beam_groups", "diversity_penalty", "early_stopping", "length_penalty",
    "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "max_matching_ngram_size", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight",
))  # fmt: skip
"""What is read by name, and what means something beside beams or an assistant only."""
_SHOWN = 40
"""Longest value that is named."""


@dataclass(frozen=True)
class Wishes:
    """What one model asks for; field → value, in transformers' own order."""

    done: dict[str, Any] = field(default_factory=dict)
    aside: dict[str, Any] = field(default_factory=dict)
    silent: dict[str, Any] = field(default_factory=dict)
    """Set aside too, and nobody has counted on it."""
    refused: str = ""
    """What cannot be done, with its value; empty where all can."""

    @property
    def processed(self) -> dict[str, Any]:
        """What changes logits."""
        return {name: value for name, value in self.done.items() if name != _STOPS}

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end every text."""
        given = self.done.get(_STOPS, ())
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def line(self) -> str:
        """For a record: what was done, and what was set aside; empty where nothing was asked for."""
        aside = named({**self.aside, **self.silent})
        parts = [named(self.done), f"set aside: {aside}" if aside else ""]
        return "; ".join(filter(None, parts))[:500]

    @property
    def digest(self) -> str:
        """Tells apart what is done; empty where nothing is."""
        if not self.done:
            return ""
        content = {name: _plain(value) for name, value in self.done.items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def told(self, name: str) -> str:
        """One line for whoever runs a model of that name; empty where there is nothing to tell."""
        parts = [f"does {named(self.done)}" if self.done else ""]
        parts += [f"sets aside {named(self.aside)}, as decoding is greedy" if self.aside else ""]
        said = " and ".join(filter(None, parts))
        return f"{name}: of its generation_config, this run {said}" if said else ""

    def heed(self, name: str) -> None:
        """Refuse a model that asks for another way of decoding.

        Args:
            name: the model's.

        Raises:
            DlbenchError: it does.
        """
        if self.refused:
            raise DlbenchError(
                f"model {name!r}: its generation_config asks for {self.refused}, and dlbench writes the likeliest "
                "token: take that out of its generation_config.json to run the model without it"
            )


def wishes(model: Any) -> Wishes:
    """Read the generation_config of a loaded transformers model; one that has none asks for nothing."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return Wishes()
    given = {name: value for name, value in vars(config).items() if value is not None and not name.startswith("_")}
    aside = {**_set(given, {"do_sample": False}), **_set(given, _ASIDE)}
    if given.get("do_sample"):
        aside |= _set(given, _SAMPLING)
    silent = _set(given, _SILENT)
    if silent.get("cache_implementation") == "quantized":  # the one that changes what is written
        aside["cache_implementation"] = silent.pop("cache_implementation")
    known = {*PROCESSED, _STOPS, *_SAMPLING, *_ASIDE, *_SILENT, *_ELSEWHERE}
    # fields that another release of transformers has, and that this module has not been told of
    aside |= _set(given, {name: value for name, value in vars(type(config)()).items() if name not in known})
    return Wishes(_set(given, {**PROCESSED, _STOPS: None}), aside, silent, _refused(given))


def _set(given: Mapping[str, Any], neutral: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields among some, where their value changes something."""
    found = {name: given[name] for name, value in neutral.items() if name in given and given[name] != value}
    return {name: value for name, value in found.items() if not (isinstance(value, list | tuple | dict) and not value)}


def _refused(given: Mapping[str, Any]) -> str:
    """The first thing that cannot be done, in words."""
    watermark = given.get("watermarking_config")
    # transformers takes a top_k of 50 where none is given
    contrastive = given.get("penalty_alpha", 0) > 0 and given.get("top_k", 50) > 1
    reasons = {
        "num_beams": ("beam search", given.get("num_beams", 1) > 1),
        "constraints": ("constrained beam search", "constraints" in given),
        "force_words_ids": ("constrained beam search", "force_words_ids" in given),
        "penalty_alpha": ("contrastive search", contrastive),
        "dola_layers": ("contrast between layers", "dola_layers" in given),
        "guidance_scale": ("guidance by a second forward", given.get("guidance_scale", 1) != 1),
        "token_healing": ("healed prompts", bool(given.get("token_healing"))),
        "watermarking_config": ("a watermark with a memory", type(watermark).__name__.startswith("SynthID")),
    }
    return next((f"{what} ({named({n: given[n]})})" for n, (what, asked) in reasons.items() if asked), "")


def named(fields: Mapping[str, Any]) -> str:
    """Fields with their values, on one line; a long value by its length."""
    found = []
    for name, value in fields.items():
        plain = _plain(value)
        text = json.dumps(plain)  # escapes what is not printable
        if len(text) > _SHOWN:
            found.append(f"{name} ({len(plain)} entries)" if isinstance(plain, list | dict) else name)
        else:
            found.append(f"{name}={text}")
    return ", ".join(found)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    made = value.to_dict() if hasattr(value, "to_dict") else vars(value)
    return {str(key): _plain(x) for key, x in made.items()}
