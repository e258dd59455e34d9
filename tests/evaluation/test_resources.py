"""Energy, memory and the load of other programs, around timed work."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from dlbench.evaluation import energy, resources
from dlbench.evaluation.resources import Bystanders, ResourceMeter, Used

CPU = torch.device("cpu")


def zone(folder: Path, number: int, name: str, energy: int) -> Path:
    place = folder / f"intel-rapl:{number}"
    place.mkdir()
    for file, content in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", 9_999_999)):
        (place / file).write_text(f"{content}\n")
    return place / "energy_uj"


def test_energy_is_that_of_all_packages_though_a_counter_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_RAPL", tmp_path)
    first, second = zone(tmp_path, 0, "package-0", 1_000_000), zone(tmp_path, 1, "package-1", 9_500_000)
    memory = zone(tmp_path, 2, "psys", 0)
    meter, used = ResourceMeter(CPU), Used()
    for _ in range(2):
        with meter.adding_to(used):
            first.write_text(str(int(first.read_text()) + 250_000))
            second.write_text(str((int(second.read_text()) + 750_000) % 10_000_000))
            memory.write_text("5000000")
    assert used.joules == pytest.approx(2.0)
    assert used.counted == 2


def test_energy_is_unavailable_where_a_counter_is_not_there_or_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_RAPL", tmp_path)
    for content in (None, "no number"):
        if content is not None:
            zone(tmp_path, 0, "package-0", 0).write_text(content)
        used = Used()
        with ResourceMeter(CPU).adding_to(used):
            pass
        assert used.joules is None


class FakeNvml(ModuleType):
    """A GPU that takes 300 watts, of which the counter tells every 100 ms."""

    class NVMLError(Exception):
        """Raised by functions that the GPU has not."""

    def __init__(self, clock: SimpleNamespace, counts: bool = True) -> None:
        super().__init__("pynvml")
        self.clock, self.counts = clock, counts

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-12-34"
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle == "handle"
        if not self.counts:
            raise self.NVMLError
        return 30_000 * int(self.clock.now / 0.1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=5.0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="12-34"))
    monkeypatch.setattr(resources.time, "perf_counter", lambda: clock.now)
    return clock


def test_energy_of_a_gpu_is_read_over_as_many_runs_as_its_counter_needs(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpu))

    def work() -> None:
        gpu.now += 0.04

    used = Used()
    ResourceMeter(torch.device("cuda", 1)).go_on(work, used)
    assert used.counted == pytest.approx(resources.GPU_SECONDS / 0.04, abs=1)
    assert used.joules is not None and used.joules / used.counted == pytest.approx(0.04 * 300, rel=0.1)


def test_energy_of_a_gpu_is_unavailable_without_nvml_or_a_counter(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (None, FakeNvml(gpu, counts=False)):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        assert energy.gpu_counter(torch.device("cuda", 1)) is None


def test_work_on_a_cpu_is_not_repeated_for_its_energy() -> None:
    used = Used()
    ResourceMeter(CPU).go_on(lambda: pytest.fail("it was timed already"), used)
    assert used == Used()


def test_memory_is_the_most_that_was_held_meanwhile() -> None:
    meter, little, much = ResourceMeter(CPU), Used(), Used()
    with meter.adding_to(little):
        pass
    if little.peak_bytes is None:
        pytest.skip("this system does not reset a process's peak")
    with meter.adding_to(much):
        torch.ones(25_000_000)  # 100 MB, and given back
    assert much.peak_bytes is not None and much.peak_bytes > little.peak_bytes + 80_000_000
    with meter.adding_to(little):
        pass
    assert little.peak_bytes < much.peak_bytes - 80_000_000


def test_other_programs_are_told_from_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(wall=10.0, own=3.0, user=100.0)
    monkeypatch.setattr(resources.time, "perf_counter", lambda: clock.wall)
    monkeypatch.setattr(resources.time, "process_time", lambda: clock.own)
    monkeypatch.setattr(resources.psutil, "cpu_times", lambda: SimpleNamespace(user=clock.user, system=5.0, nice=1.0))
    monkeypatch.setattr(resources.psutil, "cpu_count", lambda: 4)
    others = Bystanders()
    clock.wall, clock.own, clock.user = 12.0, 5.0, 104.0  # 8 seconds of processors, 2 of them ours, 2 others'
    assert others.share() == pytest.approx(0.25)
    clock.user = 99.0
    assert others.share() == 0.0
