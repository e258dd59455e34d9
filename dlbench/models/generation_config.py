"""Settings of a model's generation_config: which are applied, which have no effect, and which are an error.

Full depth equals `generate(do_sample=False)` of the model as published, which lm-eval's `hf` model also runs. So
settings that change the most likely token or end a text are applied, through transformers' own processors. Settings
without an effect in greedy decoding are set aside: records name them, and the terminal too where users may expect an
effect. Settings that ask for another decoding algorithm are refused, since then full depth would be no baseline.

    done      repetition_penalty, encoder_repetition_penalty, no_repeat_ngram_size, encoder_no_repeat_ngram_size,
              bad_words_ids, sequence_bias, suppress_tokens, begin_suppress_tokens, forced_bos_token_id,
              forced_eos_token_id, min_length, min_new_tokens, exponential_decay_length_penalty, remove_invalid_values,
              renormalize_logits, watermarking_config (of green tokens), stop_strings (in what is written), eos_token_id
    aside     do_sample, and with it temperature, top_k, top_p, min_p, top_h, typical_p, epsilon_cutoff, eta_cutoff;
              num_return_sequences; max_time; prompt_lookup_num_tokens, assistant_early_exit, use_mtp, speculation_type,
              which give the same text faster or slower; cache_implementation = quantized
    silent    max_length, max_new_tokens (the task's limit applies), other caches, compilation, and what `generate`
              returns beside the text: aside too, but not shown in the terminal
    refused   num_beams, constraints, force_words_ids, penalty_alpha with top_k, dola_layers, guidance_scale (a second
              forward per token), token_healing (changes the prompt), watermarking_config of SynthID (has a state)
    ignored   what `generate` ignores too: beam settings with one beam, sampling settings without sampling, and entries
              that transformers does not know

Lengths are counted from the row's own prompt, without padding.
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
"""Settings that transformers' processors apply, with the value that has no effect."""
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
"""Settings that are read by name, and those of beam search and assisted decoding only."""
_SHOWN = 40
"""Characters of the longest value that is shown."""


@dataclass(frozen=True)
class Wishes:
    """Settings of one model; name → value, in transformers' own order."""

    done: dict[str, Any] = field(default_factory=dict)
    aside: dict[str, Any] = field(default_factory=dict)
    silent: dict[str, Any] = field(default_factory=dict)
    """Set aside too, without a message."""
    refused: str = ""
    """The first unsupported setting, with its value; empty where there is none."""

    @property
    def processed(self) -> dict[str, Any]:
        """Settings that change logits."""
        return {name: value for name, value in self.done.items() if name != _STOPS}

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        given = self.done.get(_STOPS, ())
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def line(self) -> str:
        """For records: settings that were done and set aside; empty where there are none."""
        aside = named({**self.aside, **self.silent})
        parts = [named(self.done), f"set aside: {aside}" if aside else ""]
        return "; ".join(filter(None, parts))[:500]

    @property
    def digest(self) -> str:
        """Hash of the settings that are done; empty where there are none."""
        if not self.done:
            return ""
        content = {name: _plain(value) for name, value in self.done.items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def told(self, name: str) -> str:
        """One line for the terminal about a model of that name; empty where there is nothing to say."""
        parts = [f"does {named(self.done)}" if self.done else ""]
        parts += [f"sets aside {named(self.aside)}, as decoding is greedy" if self.aside else ""]
        said = " and ".join(filter(None, parts))
        return f"{name}: of its generation_config, this run {said}" if said else ""

    def heed(self, name: str) -> None:
        """Check that the model asks for no other decoding algorithm.

        Args:
            name: the model's.

        Raises:
            DlbenchError: it asks for one.
        """
        if self.refused:
            raise DlbenchError(
                f"model {name!r}: its generation_config asks for {self.refused}, and dlbench writes the likeliest "
                "token: take that out of its generation_config.json to run the model without it"
            )


def wishes(model: Any) -> Wishes:
    """Read the generation_config of a loaded transformers model; a model without one has no settings."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return Wishes()
    given = {name: value for name, value in vars(config).items() if value is not None and not name.startswith("_")}
    aside = {**_set(given, {"do_sample": False}), **_set(given, _ASIDE)}
    if given.get("do_sample"):
        aside |= _set(given, _SAMPLING)
    silent = _set(given, _SILENT)
    if silent.get("cache_implementation") == "quantized":  # the only cache that changes the text
        aside["cache_implementation"] = silent.pop("cache_implementation")
    known = {*PROCESSED, _STOPS, *_SAMPLING, *_ASIDE, *_SILENT, *_ELSEWHERE}
    # settings of another release of transformers, which this module does not know
    aside |= _set(given, {name: value for name, value in vars(type(config)()).items() if name not in known})
    return Wishes(_set(given, {**PROCESSED, _STOPS: None}), aside, silent, _refused(given))


def _set(given: Mapping[str, Any], neutral: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings whose value differs from the neutral one and is not empty."""
    changed = {name: given[name] for name, value in neutral.items() if name in given and given[name] != value}
    return {
        name: value for name, value in changed.items() if not (isinstance(value, list | tuple | dict) and not value)
    }


def _refused(given: Mapping[str, Any]) -> str:
    """Describe the first unsupported setting; empty where there is none."""
    watermark = given.get("watermarking_config")
    # transformers' default top_k is 50
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
    """Settings with their values, on one line; a long value by its number of entries."""
    parts = []
    for name, value in fields.items():
        plain = _plain(value)
        text = json.dumps(plain)  # escapes unprintable characters
        if len(text) > _SHOWN:
            parts.append(f"{name} ({len(plain)} entries)" if isinstance(plain, list | dict) else name)
        else:
            parts.append(f"{name}={text}")
    return ", ".join(parts)


def _plain(value: Any) -> Any:
    """Convert a value to JSON types."""
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    made = value.to_dict() if hasattr(value, "to_dict") else vars(value)
    return {str(key): _plain(x) for key, x in made.items()}
