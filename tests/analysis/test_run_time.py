"""What a plan would take here."""

import json

import pytest

from kerasgreedy.analysis.run_time import TIMED, time_plan
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.spec.load import load

SPEC = "name: s\nblocks: [{conv: 4}, {conv: 4}]\nauxiliary_head: {pool_to: 2}\n"
RECIPE = "name: r\ndata: {dataset: digits, train_examples: 130, validation: 30}\ntraining: {epochs: 3, batch_size: 20}\n"


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "s.yaml", tmp_path / "r.yaml"


def test_steps_and_seconds_by_hand(documents, monkeypatch):
    """A clock that advances by 1 s whenever it is looked at: a step takes 1 s, a beginning too.

    100 images in batches of 20, 3 epochs: 15 steps. Validation: 1.5 batches at a third, 3 times: 1.5 s. The second phase reads
    features that are cached: 100 / 20 batches of one view at a third, 5/3 s.
    """
    now = iter(range(10_000))
    monkeypatch.setattr("kerasgreedy.analysis.run_time.time.monotonic", lambda: float(next(now)))
    first, second = time_plan(prepare(*load(*documents)))
    assert (first.name, first.steps, first.step_seconds, first.start_seconds) == ("block_1", 15, 1.0, 1.0)
    assert first.seconds == pytest.approx(1 + 15 + 1.5) and second.seconds == pytest.approx(1 + 15 + 1.5 + 5 / 3)
    assert next(now) == 2 * (2 + 2 * TIMED)


def test_the_command(documents, call):
    spec, recipe = documents
    code, out, err = call(f"plan {spec} -r {recipe} --time --json")
    assert code == 0, err
    timings = json.loads(out.splitlines()[-1])["timings"]
    assert [timing["name"] for timing in timings] == ["block_1", "block_2"] and all(t["seconds"] > 0 for t in timings)
    assert "timings" not in json.loads(call(f"plan {spec} -r {recipe} --json")[1].splitlines()[-1])
