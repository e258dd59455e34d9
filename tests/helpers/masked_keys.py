"""What `evict` hides, counted from a generation's routes in plain loops that know nothing of the engine."""

from dlbench.method import Action


def masked(generation, windows):
    """Keys inside a window that some token ran a layer's attention without: those of decoded tokens that had not.

    Args:
        generation: its routes are looked at.
        windows: of each layer, how many positions a token attends to, itself included; None for all.
    """
    steps = [route for route, times in generation.routes for _ in range(times)]
    count = 0
    for layer, window in enumerate(windows):
        for step, route in enumerate(steps):
            if not route[layer] & Action.ATTN:
                continue
            first = 0 if window is None else max(0, step - window + 1)
            count += sum(not steps[earlier][layer] & Action.ATTN for earlier in range(first, step))
    return count
