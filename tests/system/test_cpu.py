import platform

import pytest

from dlbench.system import cpu


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Let the system tell this of its processor; None for a system without such a file."""

    def tell(facts, known=""):
        file = tmp_path / "cpuinfo"
        if facts is not None:
            file.write_text(facts)
        monkeypatch.setattr(cpu, "_FACTS", file)
        monkeypatch.setattr(platform, "processor", lambda: known)
        cpu._fact.cache_clear()

    yield tell
    cpu._fact.cache_clear()


def test_linux_tells_maker_and_name(told):
    told("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: A Name: 9 @ 2 GHz\n\nvendor_id\t: other\n")
    assert (cpu.vendor(), cpu.name()) == ("AuthenticAMD", "A Name: 9 @ 2 GHz")


def test_windows_tells_the_maker_at_the_end_of_a_description(told):
    told(None, "Intel64 Family 6 Model 106 Stepping 6, GenuineIntel")
    assert cpu.vendor() == "GenuineIntel"


def test_where_nothing_is_told_there_is_no_maker_but_a_name(told):
    told(None)
    assert cpu.vendor() == ""
    assert cpu.name() == platform.machine()
