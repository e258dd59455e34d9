"""Methods as they are after a fit, without one: what is learnt is random, seeded, and far from doing nothing."""

import torch

from dlbench.method import Method, Oracle, Router
from dlbench.registry import methods as registry


def ready(method, depth=5, width=32, seed=0):
    """Give a method what a fit would have given it; returns it."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape, size=0.3):
        return torch.randn(*shape, generator=generator) * size

    if isinstance(method, Router):
        with torch.no_grad():
            for parameter in method.module(depth, width).parameters():
                parameter.copy_(noise(*parameter.shape))
        method.module(depth, width).requires_grad_(False)
    name = type(method).__name__
    if name == "SequenceRouter":
        places, count = 2 * len(method.reads(depth)), len(method.candidates(depth))
        learnt = {"centre": (places * width,), "axes": (4, places * width), "slopes": (4, count), "mean": (count,)}
        method.load_weights({key: noise(*shape) for key, shape in learnt.items()})
    elif name == "ShortGpt":
        method.influence = tuple(noise(depth).abs().tolist())
    elif name == "Sleb":
        method.order = tuple((1 + torch.randperm(depth - 2, generator=generator)).tolist())
    elif name == "LlmDrop":
        method.importance = tuple(noise(2 * depth).abs().tolist())
        method.attention_cost = (0.4,) * depth
    elif name == "Calm" and method.measure == "classifier":
        method.load_weights({"weight": noise(1, width), "bias": noise(1)})
    return method


def discovered(kind=Method):
    """(name, parameters) of every method that is installed, its default and each of its variants."""
    for name in registry.names():
        cls = registry.load(name)
        if issubclass(cls, kind) and not issubclass(cls, Oracle):
            for params in [{}, *(v for v in cls.variants if v)]:
                yield name, params


def label(name, params):
    """How a test names a method."""
    return f"{name}-{','.join(f'{k}={v}' for k, v in params.items())}".removesuffix("-")
