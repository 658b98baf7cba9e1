"""A finished run that trains longer ends where one that was asked for so much at once does."""

import json

import numpy as np
import pytest
from conftest import same_weights, some, stop_at, weights, without_time
from PIL import Image

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


def killed_in(place, name, run, monkeypatch):
    """A finished run is asked for two epochs more, and the process dies in a function."""

    def die(*arguments):
        raise SystemError("killed")

    monkeypatch.setattr(place, name, die)
    with pytest.raises(SystemError):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=3"])
    monkeypatch.undo()


@pytest.mark.parametrize("sets", some(["training.keep=last"], slow=[[], END_TO_END, [*END_TO_END, "training.keep=last"]]))
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


@pytest.mark.slow
def test_killed_before_it_trains_on_or_stopped_while_it_does(trained, monkeypatch):
    """Once the change is written down the run is not finished any more, whatever comes between."""
    whole = trained(3, *END_TO_END, name="whole")
    run = trained(1, *END_TO_END)

    killed_in(entry_points, "_train", run, monkeypatch)
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

    killed_in(Workdir, "record_changes", run, monkeypatch)
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


@pytest.mark.parametrize("left", some("a damaged end", slow=["only the end", "an earlier point"]))
def test_where_the_end_is_not_kept_nothing_is_trained_twice(trained, left, capsys):
    """A version before kept no such point; or it was lost. Checkpoints of before it would train the same epochs again."""
    run = trained(2, *END_TO_END)
    *manifests, finished = sorted((run.workdir / "checkpoints").glob("*.json"))
    ends = [file for file in manifests if json.loads(json.loads(file.read_text())["body"])["meta"]["epoch"] == 2]
    assert len(ends) == 1 < len(manifests) and finished
    if left == "a damaged end":
        for end in ends:
            end.write_bytes(end.read_bytes()[:-1])
    else:
        for manifest in manifests if left == "only the end" else ends:
            manifest.unlink()
    with pytest.raises(InputError, match=r"is not kept; versions before did not keep it; .*start_from="):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=5"])
    assert ("passed over a damaged checkpoint" in capsys.readouterr().err) == (left == "a damaged end")
    assert Workdir.open(run.workdir).results() == run.results


@pytest.mark.slow
def test_another_monitor_judges_the_best_point_anew(trained):
    """Its score by the old one is no score of the new one: the point that is kept is the best by the new one."""
    run = trained(1, *END_TO_END, "training.keep=best", "training.monitor=validation_accuracy")
    run = resume_run(run.workdir, quiet=True, overrides=["training.epochs=5", "training.monitor=validation_loss"])
    records = [r for r in without_time(run.workdir) if r["split"] == "validation"]
    best = run.results["phases"][-1]["best"]
    losses = {r["epoch"]: r["loss"] for r in records if r["epoch"]}  # the start was not kept
    assert best["epoch"] == min(losses, key=losses.get) and best["monitor"] == "validation_loss"
    assert best["score"][0] == pytest.approx(-losses[best["epoch"]], rel=1e-4)


def test_a_run_that_kept_its_last_point_keeps_the_best_from_there(trained):
    run = trained(1, *END_TO_END, "training.keep=last")
    run = resume_run(run.workdir, quiet=True, overrides=["training.epochs=3", "training.keep=best"])
    best = run.results["phases"][-1]["best"]
    assert best["epoch"] in (1, 2, 3) and run.results["phases"][-1]["keep"] == "best"


@pytest.mark.slow
def test_killed_before_it_trains_on_and_then_its_data_moved(files, tmp_path, monkeypatch):
    """The place of the data alone is said when it goes on; the epochs that were asked for before are not forgotten."""
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng((number, len(name), count)).integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / split / name / f"{number}.png")
    data = [f"data={{dataset: 'folder:{tmp_path / 'pets'}', validation: 4}}", "training.batch_size=5"]
    run = train_spec(*files, [*END_TO_END, *data, "training.epochs=1"], tmp_path / "run", quiet=True)

    killed_in(entry_points, "_train", run, monkeypatch)
    (tmp_path / "pets").rename(tmp_path / "moved")
    assert resume_run(run.workdir, quiet=True, data_at=str(tmp_path / "moved")).results["epochs"] == 3


@pytest.mark.slow
def test_means_and_verdicts_have_no_point_to_go_on_from(trained):
    mean = trained(2, *END_TO_END, "training.solver={name: averaged, steps: 4, every: 1}", "training.keep=last", name="mean")
    with pytest.raises(InputError, match="the mean of its last points has taken their place"):
        resume_run(mean.workdir, quiet=True, overrides=["training.epochs=4"])
    linear = [
        "strategy=random_features", "training.solver={name: fista, tolerance: 0.5}", "training.objective=squared_error",
        "auxiliary_head={hidden_layers: 0}", "training.regularizers=[{name: l2, weight: 1.0}]", "training.keep=last",
        "blocks=[{conv: 3}]", "data.augment={}", "training.optimizer.weight_decay=0",
    ]  # fmt: skip
    solved = trained(30, *linear, name="solved")
    assert solved.results["epochs"] < 30 and "below" in solved.results["phases"][-1]["verdict"]
    with pytest.raises(InputError, match="has found what it looked for"):
        resume_run(solved.workdir, quiet=True, overrides=["training.epochs=60"])


@pytest.mark.slow
def test_advice_names_the_section_of_the_last_phase(trained):
    run = trained(1, "prune={keep: 0.5, fine_tune: {epochs: 1}}", "blocks=[{conv: 4}]")
    with pytest.raises(InputError, match=r"more prune.fine_tune.epochs, or another early_stopping"):
        resume_run(run.workdir, quiet=True, overrides=["training.epochs=5"])
    assert resume_run(run.workdir, quiet=True, overrides=["prune.fine_tune.epochs=2"]).results["epochs"] == 3


def test_results_of_before_are_never_written_over(trained):
    run = trained(1, *END_TO_END)
    (run.workdir / "results_1_epochs.json").write_text("mine")
    resume_run(run.workdir, quiet=True, overrides=["training.epochs=2"])
    assert (run.workdir / "results_1_epochs.json").read_text() == "mine" and (run.workdir / "results_1_epochs_2.json").is_file()
