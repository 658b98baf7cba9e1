"""A finished run that trains longer ends where one that was asked for so much at once does."""

import json

import pytest
from conftest import same_weights, some, stop_at, weights, without_time

from kerasgreedy.errors import InputError, Stopped
from kerasgreedy.runs import longer
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.train import entry_points
from kerasgreedy.train.entry_points import resume_run, train_spec

END_TO_END = ["strategy=end_to_end"]


@pytest.fixture
def trained(files, tmp_path):
    """Trains the small spec for so many epochs into a folder of that name."""

    def train(epochs: int, *sets: str, name: str = ""):
        return train_spec(*files, [f"training.epochs={epochs}", *sets], tmp_path / (name or str(epochs)), quiet=True)

    return train


@pytest.mark.parametrize("sets", some(["training.keep=last"], END_TO_END, slow=[[], [*END_TO_END, "training.keep=last"]]))
def test_ends_as_one_trained_so_long_at_once(trained, sets):
    """With a constant rate, bit for bit; of several phases only the last one goes on."""
    at_once = ["phases={block_1: {epochs: 1}, block_2: {epochs: 1}}"] if END_TO_END[0] not in sets else []
    whole, run = trained(3, *sets, *at_once, name="whole"), trained(1, *sets)
    first = run.results
    run = resume_run(run.workdir, quiet=True, overrides=["training.epochs=3"])
    same_weights(weights(run.workdir), weights(whole.workdir))
    assert without_time(run.workdir) == without_time(whole.workdir)
    assert run.results["depths"] == whole.results["depths"]
    assert [entry["epochs"] for entry in run.results["phases"]] == [entry["epochs"] for entry in whole.results["phases"]]
    assert json.loads((run.workdir / f"results_{first['epochs']}_epochs.json").read_text()) == first
    (change,) = Workdir.open(run.workdir).changes()
    assert (change["phase"], change["epoch"], change["step"]) == (len(first["phases"]) - 1, 1, 0)
    assert resume_run(run.workdir, quiet=True).results == run.results  # it is done again


def test_killed_before_it_trains_on_or_stopped_while_it_does(trained, monkeypatch):
    """Once the change is written down the run is not finished any more, whatever comes between."""
    whole = trained(3, *END_TO_END, name="whole")
    run = trained(1, *END_TO_END)

    def die(*arguments):
        raise SystemError("killed")

    monkeypatch.setattr(entry_points, "_train", die)
    with pytest.raises(SystemError):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=3"])
    monkeypatch.undo()
    assert Workdir.open(run.workdir).results() is None
    stop_at(monkeypatch, 6)
    with pytest.raises(Stopped, match="epoch 3, step 2"):
        resume_run(run.workdir, quiet=True)
    monkeypatch.undo()
    run = resume_run(run.workdir, quiet=True)
    same_weights(weights(run.workdir), weights(whole.workdir))
    assert run.results["depths"] == whole.results["depths"]


def test_killed_between_results_and_the_change(trained, monkeypatch):
    """The results come again, as they were."""
    run = trained(1, *END_TO_END)

    def die(*arguments):
        raise SystemError("killed")

    monkeypatch.setattr(Workdir, "record_changes", die)
    with pytest.raises(SystemError):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=3"])
    monkeypatch.undo()
    again = resume_run(run.workdir, quiet=True)
    assert again.results["depths"] == run.results["depths"] and Workdir.open(run.workdir).changes() == []


def test_early_stopping_that_ended_it_may_wait_longer(trained):
    """Patience 1 at a rate at which nothing is learnt ends at once; 3 waits on, counting what was waited."""
    plain = ["block_defaults.batch_norm=false", "auxiliary_head.batch_norm=false"]
    sets = [*END_TO_END, *plain, "training.optimizer.learning_rate=1e-30", "training.early_stopping=1"]
    run = trained(6, *sets)
    assert run.results["epochs"] == 1
    with pytest.raises(
        InputError, match="'?end_to_end'?, its last phase, is over after 1 of 9 epochs, of which 1 were no better"
    ):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=9"])
    assert Workdir.open(run.workdir).changes() == [] and Workdir.open(run.workdir).results() == run.results
    assert resume_run(run.workdir, quiet=True, overrides=["training.early_stopping=3"]).results["epochs"] == 3


def test_what_does_not_train_longer(trained, monkeypatch, call):
    run = trained(2, *END_TO_END)
    for change in ("training.epochs=2", "training.epochs=1", "training.optimizer.learning_rate=0.01"):
        code, _, err = call(f"train --resume {run.workdir} --set {change}")
        if change == "training.epochs=2":
            assert code == 0 and "training is already done" in err  # nothing changes
        else:
            assert code == 2 and "is over after 2 of" in err and "more training.epochs" in err
    monkeypatch.setattr(longer, "Phase", int)
    with pytest.raises(InputError, match="training is done, and ends with .*, which is no phase.* start_from="):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=5"])


def test_a_run_of_a_version_before(trained):
    run = trained(1, *END_TO_END)
    for manifest in sorted((run.workdir / "checkpoints").glob("*.json"))[:-1]:
        manifest.unlink()
    with pytest.raises(InputError, match=r"versions before did not; to train its network further: .*start_from="):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=5"])
    assert Workdir.open(run.workdir).results() == run.results
