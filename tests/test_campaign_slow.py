"""The fault campaign (see `campaign/`): what is killed goes on as if nothing had been, what is damaged is said."""

import os
import subprocess
import sys

import pytest
from campaign import workloads
from campaign.__main__ import whole_campaign
from campaign.nursery import ONE_THREAD, Nursery
from campaign.pairs import pair_rows
from campaign.situations import BAD, situation_rows
from campaign.workloads import PRUNED
from conftest import ROOT

pytestmark = pytest.mark.slow


def test_a_fork_of_a_warm_process_does_what_a_fresh_process_does(tmp_path):
    fresh, forked = tmp_path / "fresh/run", tmp_path / "forked/run"
    command = [sys.executable, "-m", "kerasgreedy", *PRUNED.command(fresh.parent, fresh)]
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=True, capture_output=True
    )
    nursery = Nursery(tmp_path / "nursery")
    try:
        ended = [nursery.run(PRUNED.command(place.parent, place)) for place in (forked, tmp_path / "again/run")]
    finally:
        nursery.close()
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    for place in (forked, tmp_path / "again/run"):
        assert workloads.differences(place, workloads.outcome(fresh)) == []


def test_nothing_is_lost_and_nothing_goes_unsaid(tmp_path, capsys):
    report = whole_campaign(tmp_path)
    with capsys.disabled():
        print(f"\n{report.as_text()}")
    assert report.problems == []
    totals = report.totals()
    assert totals["kills"] >= 100 and totals["damaged_files"] >= 30
    assert 2 * totals["in_a_write"] >= totals["kills"]
    pairs = {row["pairs_of"]: row for row in pair_rows(report.pairs)}
    assert {kind: row["pairs"] for kind, row in pairs.items()} == {"trainings": 100, "resumed": 20, "training and export": 20}
    assert pairs["trainings"]["one_won"] == 100
    assert not any(row[name] for row in pairs.values() for name in ("mixed", "both_lost", "hang", "unclear", "left_behind"))
    outside = situation_rows(report.outside)
    assert sum(row["tried"] for row in outside) >= 250 and len(outside) == 9
    assert not any(row[name.replace(" ", "_")] for row in outside for name in BAD)
