"""How much memory is free, and which errors mean that it ran out."""

import pytest
import torch

from dlbench.system import device_memory


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
