"""How many rows fit, and which errors say that they did not."""

from functools import partial

import pytest
import tiny_models
import torch
from transformers import DynamicCache

from dlbench.system import device_memory


def test_a_wave_takes_a_share_of_the_free_memory():
    backbone = tiny_models.backbone("llama", depth=5)

    def fit(share, slots=1000, copied=False):
        return device_memory.rows_that_fit(backbone, 9, 4, 5, slots, int(share / device_memory.SHARE), copied=copied)

    row, moving = (device_memory.row_bytes(backbone, 9, new, 5) for new in (4, 8))
    waiting = 5 * 9 * backbone.cache_bytes
    assert fit(10.5 * row) == 10
    assert fit(0.5 * row) == fit(0) == 1  # one row is always tried
    # beyond the slots rows wait with their prompts, where these and the copies fit
    assert fit(10.5 * row, slots=10) == fit(10 * moving, slots=10) == fit(10 * moving + 9 * waiting, slots=10) == 10
    assert fit(10 * moving + 12.5 * waiting, slots=10) == 12
    # prompts that are written over are copied, however few they are
    both = partial(fit, copied=True)
    assert both(10.5 * (moving + waiting)) == 10 and both(0.5 * moving) == 1
    assert both(10 * moving + 20.5 * waiting, slots=10) == 20


@pytest.mark.parametrize(
    ("slots", "documents", "processes", "rows"),
    [
        (48, 500, 1, 192),
        (48, 32, 1, 32),
        (48, 33, 2, 17),  # every process has something to do
        (256, 500, 4, 125),
        (1, 9, 1, 4),
    ],
)
def test_without_a_limit_by_memory(slots, documents, processes, rows):
    assert device_memory.most_rows(slots, documents, processes) == rows


def test_more_rows_together_where_there_is_an_accelerator():
    assert (
        device_memory.most_slots("cpu") == 48
        and device_memory.most_slots("cuda") == device_memory.most_slots("mps") == 256
    )


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_keys_and_values_of_every_family_are_foreseen(family, dtype):
    backbone = tiny_models.backbone(family, depth=5, dtype=dtype)
    cache = DynamicCache()  # without windows: what the engine keeps
    with torch.inference_mode():
        backbone.model(torch.arange(2, 9)[None], past_key_values=cache, use_cache=True)
    held = sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))
    if family != "falcon-40b":
        assert held == 5 * 7 * backbone.cache_bytes
    needed = device_memory.row_bytes(backbone, 7, 4, 5)
    assert needed > held * 11 / 7
    assert needed - device_memory.row_bytes(backbone, 7, 4, 2) == 3 * 11 * backbone.cache_bytes
    assert device_memory.row_bytes(backbone, 14, 4, 5) > needed < device_memory.row_bytes(backbone, 7, 8, 5)


def test_eager_attention_needs_the_square_of_the_prompt():
    eager, sdpa = (tiny_models.backbone("llama", attention=a) for a in ("eager", "sdpa"))
    more = [device_memory.row_bytes(eager, n, 4, 5) - device_memory.row_bytes(sdpa, n, 4, 5) for n in (10, 20)]
    assert more[0] > 0 and more[1] == 4 * more[0]


def chained():
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        except RuntimeError as error:
            raise ValueError("a method failed") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (chained(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_that_memory_is_full(error, full):
    assert device_memory.ran_out(error) == full


def test_torch_says_it_as_expected():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.float64)
    assert device_memory.ran_out(caught.value)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(device_memory, "_CGROUP", tmp_path)
    device = torch.device("cpu")
    whole = device_memory.free_bytes(device, 1)
    assert whole > 0
    for name, text in (("memory.max", "3000\n"), ("memory.current", "2500\n"), ("memory.stat", "inactive_file 100\n")):
        (tmp_path / name).write_text(text)
    assert device_memory.free_bytes(device, 1) == 600 and device_memory.free_bytes(device, 3) == 200
    (tmp_path / "memory.max").write_text("max\n")
    assert device_memory.free_bytes(device, 1) > 1 << 20
