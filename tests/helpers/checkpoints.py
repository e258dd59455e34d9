"""Model folders as they are met: saved by transformers, then changed as a mishap, a wrapper or an old release would."""

import json
import shutil

import tiny_models
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from dlbench.models.loading import embedded_folder


def save(model, folder):
    """Save a model with nano's tokenizer; returns the folder."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded_folder("nano")).save_pretrained(folder)
    return folder


def tied(family, depth=2):
    """A tiny model whose head is its embedding."""
    model = tiny_models.build(family, depth=depth)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


def copy(folder, to, **config):
    """A copy with changes in config.json; None takes a key out."""
    shutil.copytree(folder, to)
    content = {**json.loads((to / "config.json").read_text()), **config}
    (to / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return to


def rewrite(folder, change):
    """Change the weights of a folder: a function of name → tensor; returns the folder."""
    file = folder / "model.safetensors"
    weights = change(load_file(file))
    save_file({key: value.contiguous() for key, value in weights.items()}, file, {"format": "pt"})
    return folder


def prefixed(prefix):
    return lambda weights: {prefix + key: value for key, value in weights.items()}


def without(*words):
    """Weights whose names hold none of some words."""
    return lambda weights: {key: value for key, value in weights.items() if not any(word in key for word in words)}


def with_more(**more):
    """Weights and others beside: names, with `__` for dots, and `0` for every layer of two → shapes."""
    names = {key.replace("__", "."): shape for key, shape in more.items()}
    every = {key.replace(".0.", f".{i}."): shape for key, shape in names.items() for i in range(2)}
    return lambda weights: {**weights, **{key: torch.ones(shape) for key, shape in every.items()}}
