"""Arguments as a user of lm-eval writes them, in dlbench's words: each is understood, or answered by one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dlbench.errors import DlbenchError

_SEVERAL = ("--tasks", "--model-args", "--gen-kwargs")
"""Options of lm-eval that take all words up to the next option."""
_BACKENDS = {
    **dict.fromkeys(("hf", "hf-auto", "huggingface"), ""),
    **dict.fromkeys(("vllm", "sglang", "gguf", "local-completions", "openai-completions", "mamba_ssm"), "a backend"),
}
"""What lm-eval's `--model` names: empty for transformers, which dlbench runs itself."""
_NO_EFFECT = ("--log-samples",)
"""Flags that ask for what dlbench always does."""
_INSTEAD = {
    "--fit": "is called --refit: fit methods again even where fits exist",
    "--no-fit": "is the default: leave it away (--refit fits again even where fits exist)",
    "--again": "is called --refit",
    "--samples": "documents are chosen by --limit N, a sample, or --limit first:N",
    "--use-cache": "samples are kept under --out, and the same command goes on there: leave it away",
    "--cache-requests": "tasks are read anew for every run: leave it away",
    "--max-batch-size": "give --batch-size N, or auto",
    "--predict-only": "outputs are in OUT/samples, and scores are computed from them: leave it away",
    "--verbosity": "give --verbose, --quiet or --debug",
    "--write-out": "prompts are in OUT/documents.jsonl after the run: leave it away",
    "--show-config": "`dlbench list tasks --json` shows tasks",
    "--check-integrity": "there is no such check: leave it away",
    "--fewshot-as-multiturn": "examples are turns of the chat wherever there is a chat template: leave it away",
    "--confirm-run-unsafe-code": "tasks that execute generated code are refused, and others need no confirmation",
    "--metadata": "write it into a task YAML, under metadata",
    "--wandb-args": "results are files under --out: leave it away",
    "--wandb-config-args": "results are files under --out: leave it away",
    "--trackio-args": "results are files under --out: leave it away",
    "--hf-hub-log-args": "results are files under --out: leave it away",
}
"""Option -> what to write in its place, or why to leave it away."""
_MODEL_ARGS = {"pretrained": "--model"}
"""Argument of lm-eval's `hf` -> option; others are options of their own names."""
_NEW_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_FALSE = ("false", "no", "0", "none")


def understood(args: Sequence[str], options: Mapping[str, bool], *, positional: bool) -> list[str]:
    """Return the arguments of a command with lm-eval's spelling replaced by dlbench's.

    Args:
        args: as they were given.
        options: of the command: name, with hyphens -> whether it is a flag.
        positional: whether the command takes arguments without a name.

    Raises:
        DlbenchError: there is nothing like it in dlbench; the message says what to write.
    """
    words, out, more = list(args), list[str](), list[str]()
    while words:
        word = words.pop(0)
        if word == "--":
            return [*out, *more, "--", *words]
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if not word.startswith("--"):
            out.append(word)
            continue
        given = [value] if equals else []
        if name in _SEVERAL and not (positional and given):
            while words and not words[0].startswith("-") and not (positional and given):
                given.append(words.pop(0))
        text = ",".join(given)
        if name == "--model-args":
            more += _of_model(text, options)
        elif name == "--gen-kwargs":
            more += _of_generation(text, options)
        elif name == "--apply-chat-template":
            if not given and words and not words[0].startswith("-") and not positional:
                text = words.pop(0)
            more += _of_template(text)
        elif name in options:
            out += [f"{name}={text}"] if given else [name]
        elif name in _INSTEAD:
            raise DlbenchError(f"{name}: {_INSTEAD[name]}")
        elif name not in _NO_EFFECT:
            out.append(word)
    return _without_backend([*out, *more])


def _pairs(option: str, text: str) -> dict[str, str]:
    """The pairs of `a=1,b=2`; a value may hold commas."""
    pairs: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+=)", text):
        name, equals, value = part.strip().partition("=")
        if not (name and equals):
            raise DlbenchError(f"{option} {text!r}: write NAME=VALUE,NAME=VALUE")
        pairs[name] = value
    return pairs


def _of_model(text: str, options: Mapping[str, bool]) -> list[str]:
    """Options for `--model_args`."""
    pairs = _pairs("--model_args", text)
    if (revision := pairs.pop("revision", "main")) != "main":
        pairs["pretrained"] = f"{pairs.get('pretrained', '')}@{revision}"
    if pairs.pop("parallelize", "False").lower() not in _FALSE:
        pairs["device_map"] = "auto"
    if "peft" in pairs:
        raise DlbenchError(f"--model_args peft: give the adapter as the model: --model {pairs['peft']}")
    found = []
    for name, value in pairs.items():
        option = _MODEL_ARGS.get(name, "--" + name.replace("_", "-"))
        if option not in options:
            raise DlbenchError(f"--model_args {name}={value}: there is no such option; leave it away")
        if not options[option]:
            found.append(f"{option}={value}")
        elif value.lower() not in _FALSE:
            found.append(option)
    return found


def _of_generation(text: str, options: Mapping[str, bool]) -> list[str]:
    """Options for `--gen_kwargs`; those that ask for greedy decoding need none."""
    found = []
    for name, value in _pairs("--gen_kwargs", text).items():
        if name in _NEW_TOKENS and "--max-new-tokens" in options:
            found.append(f"--max-new-tokens={value}")
        elif name == "until":
            raise DlbenchError("--gen_kwargs until: stop texts are the task's; change them in a task YAML of your own")
        elif not (name == "do_sample" and value.lower() in _FALSE) and not (name == "temperature" and _is_zero(value)):
            raise DlbenchError(f"--gen_kwargs {name}={value}: decoding is greedy; leave it away")
    return found


def _is_zero(value: str) -> bool:
    try:
        return float(value) == 0
    except ValueError:
        return False


def _of_template(name: str) -> list[str]:
    """The option for `--apply_chat_template`, which may name a template."""
    if name.lower() in ("", "true"):
        return ["--chat-template=on"]
    if name.lower() in _FALSE:
        return ["--chat-template=off"]
    raise DlbenchError(f"--apply_chat_template {name}: the tokenizer's own template is used; write --chat-template on")


def _without_backend(args: list[str]) -> list[str]:
    """The arguments without a `--model` that names a backend of lm-eval, where another names the model."""
    kept, backends, models, index = list[str](), list[str](), 0, 0
    while index < len(args):
        word, value = args[index], None
        if word.startswith("--model="):
            value = word.partition("=")[2]
        elif word in ("--model", "-m", "-M") and index + 1 < len(args):
            index, value = index + 1, args[index + 1]
        index += 1
        if value in _BACKENDS:
            backends.append(value)
            continue
        models += value is not None
        kept += [word] if value is None else [f"--model={value}"]
    for name in backends:
        if _BACKENDS[name] or not models:
            raise DlbenchError(
                f"--model {name}: that is a backend of lm-eval, and dlbench runs transformers' models itself: name the "
                "model, --model ORG/NAME or a folder"
            )
    return kept
