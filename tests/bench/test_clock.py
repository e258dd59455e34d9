import torch

from dlbench.bench.clock import LEAST, Repeats, Stopwatch, race, turned


class FakeClock:
    """A clock that only the work moves on."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time

    def work(self, *seconds):
        """Work that takes so long, call after call."""
        left = list(seconds)

        def run():
            took = left.pop(0)
            self.time += took
            return took

        return run


def test_medians_and_quartiles():
    repeats = Repeats((4.0, 1.0, 3.0, 2.0, 100.0))
    assert (repeats.median, repeats.low, repeats.high) == (3.0, 2.0, 4.0)
    assert Repeats((1.0, 2.0)).median == 1.5
    assert Repeats((7.0,)).low == Repeats((7.0,)).high == 7.0


def test_a_ratio_is_taken_round_by_round():
    clock = FakeClock()
    # The machine is ten times slower in the second round, for both.
    times = race({"theirs": clock.work(9, 2, 20, 4), "ours": clock.work(9, 1, 10, 1)}, 3, now=clock)
    assert times.rounds == {"theirs": (2, 20, 4), "ours": (1, 10, 1)}
    assert times.quotients("theirs", "ours") == (2, 2, 4)


def test_the_first_run_counts_nowhere():
    clock = FakeClock()
    times = race({"a": clock.work(50, 1, 1), "b": clock.work(1, 1)}, 2, warm={"b": clock.work(30)}, now=clock)
    assert times.warmups == {"a": 50, "b": 30}
    assert times.rounds == {"a": (1, 1), "b": (1, 1)}


def test_a_contender_may_warm_up_twice():
    clock = FakeClock()
    times = race({"a": clock.work(50, 40, 1), "b": clock.work(9, 8, 2)}, 1, warm_ups=2, now=clock)
    assert times.warmups == {"a": 90, "b": 17} and times.rounds == {"a": (1,), "b": (2,)}


def test_a_slow_machine_gets_fewer_rounds_but_three():
    for seconds, rounds in ((1, 5), (2, 4), (9, LEAST)):
        clock = FakeClock()
        times = race({"a": clock.work(*[seconds] * 6)}, 5, patience=7, now=clock)
        assert len(times.rounds["a"]) == rounds
    assert len(race({"a": lambda: 1.0}, 2, patience=0).rounds["a"]) == 2


def test_contenders_take_turns_and_beginning_moves_on():
    seen = []
    race({name: lambda name=name: seen.append(name) or 1.0 for name in "abc"}, 4)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert turned(["x"], 5) == ["x"]


def test_a_stopwatch_tells_seconds_and_result():
    clock = FakeClock()
    assert Stopwatch(torch.device("cpu"), clock).of(clock.work(2.5)) == (2.5, 2.5)
