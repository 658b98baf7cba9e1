"""Progress of long work: lines without a terminal, the time that is left, silence."""

import pytest

from kerasgreedy.reports import countdown
from kerasgreedy.reports.countdown import Countdown, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set."""
    now = [0.0]
    monkeypatch.setattr(countdown.time, "monotonic", lambda: now[0])
    return now


def test_durations():
    assert [duration(seconds) for seconds in (0, 75, 3700)] == ["0:00", "1:15", "1:01:40"]


def test_lines_and_time_left(clock):
    """Pieces of an earlier process count as done and say nothing of the speed."""
    lines = []
    work = Countdown("points", 100, lines.append)
    work.known(40)
    for second in range(1, 61):
        clock[0] = float(second)
        work.did()
    assert lines[0] == "points: 50 of 100, 0:50 left" and lines[-1] == "points: 100 of 100"
    assert len(lines) == 6  # every ten seconds, and at the end


def test_nobody_listens(clock, capsys):
    work = Countdown("points", 2, None)
    for _ in range(2):
        clock[0] += 100
        work.did()
    assert capsys.readouterr() == ("", "")
