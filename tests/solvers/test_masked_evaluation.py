"""Evaluation under masks: which weights they come from, and what it refuses."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from payloads import Payload
from test_alternation import run

from kerasgreedy.errors import InputError
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.train.entry_points import load_network
from kerasgreedy.train.evaluating import evaluate_run

SPEC = """
name: small
blocks:
  - {conv: 3}
  - {conv: 4, stride: 2}
auxiliary_head: {pool_to: 2}
"""
SOLVER = "training.solver={name: alternation, warm_up_epochs: 1, refresh: 2}"
LAST = ("data.augment={}", "data.augment_views=null", "training.keep=last", "training.optimizer.learning_rate=0.2")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return run(tmp_path_factory.mktemp("masked"), *LAST, SOLVER, spec=SPEC).workdir


def conv(x, kernel, bias, stride):
    """3x3, zeros around as TensorFlow's SAME has them, float64."""
    before = 1 if stride == 1 else 0
    padded = np.pad(x, ((0, 0), (before, 2 - before if stride == 1 else 1), (before, 2 - before if stride == 1 else 1), (0, 0)))
    rows = -(-x.shape[1] // stride)
    out = np.zeros((len(x), rows, rows, kernel.shape[-1])) + bias
    for r, c in np.ndindex(3, 3):
        window = padded[:, r : r + stride * (rows - 1) + 1 : stride, c : c + stride * (rows - 1) + 1 : stride]
        out += np.einsum("bijc,ck->bijk", window, kernel[r, c])
    return out


def accuracy(masks, weights, images, labels):
    """Top-1 of W3 M2 W2 M1 W1 x, `masks(layer, q)` giving M."""
    x = images
    for layer, stride in (("block_1", 1), ("block_2", 2)):
        q = conv(x, weights[f"{layer}/conv_1/kernel"], weights[f"{layer}/conv_1/bias"], stride)
        x = q * masks(layer, q)
    size = x.shape[1] // 2
    pooled = x.reshape(len(x), 2, size, 2, size, -1).mean((2, 4)).reshape(len(x), -1)
    logits = pooled @ weights["head_2/dense_1/kernel"] + weights["head_2/dense_1/bias"]
    return np.mean(logits.argmax(1) == labels)


def test_against_numpy(masked):
    """`held`: masks of the weights at the last refresh, on the weights of now; `instance` and `batch`: of the weights of now."""
    from kerasgreedy.runs.open_run import open_job, open_pipeline
    from kerasgreedy.runs.workdir import Workdir

    folder = Workdir.open(masked)
    job = open_job(folder, None)
    batches = list(open_pipeline(job, None, folder).evaluation("train", 64))
    images = np.concatenate([x.numpy() for x, _, _ in batches]).astype(np.float64)
    labels = np.concatenate([y.numpy() for _, y, _ in batches])
    network = load_network(masked)
    now = {key: np.float64(v) for name in network.names for key, v in network.arrays(name).items()}
    with np.load(masked / "support" / "phase_1.npz") as stored:
        then = {key.split("/", 1)[1]: np.float64(stored[key]) for key in stored.files}
    assert set(then) == {key for key in now if not key.startswith("head_1")}
    assert any(np.abs(then[key] - now[key]).max() > 1e-3 for key in then), "the last refresh was two epochs ago"

    held = {}
    accuracy(lambda layer, q: held.setdefault(layer, q > 0), then, images, labels)
    expected = {
        "held": accuracy(lambda layer, q: held[layer], now, images, labels),
        "instance": accuracy(lambda layer, q: q > 0, now, images, labels),
    }
    for masks, value in expected.items():
        assert evaluate_run(masked, "train", masks=masks)["depths"][-1]["top1"] == pytest.approx(value)
    ordinary = evaluate_run(masked, "train")["depths"][-1]
    assert evaluate_run(masked, "train", masks="instance")["depths"][-1] == pytest.approx(ordinary, rel=1e-5)
    assert expected["held"] != expected["instance"]

    def energy(layer, q):
        return (np.maximum(q, 0) ** 2).mean(0) > 0.2

    value = accuracy(energy, now, images, labels)
    assert evaluate_run(masked, "train", masks="batch", beta=0.2, batch_size=64)["depths"][-1]["top1"] == pytest.approx(value)
    value = accuracy(lambda layer, q: q**2 > 0.3, now, images, labels)
    found = evaluate_run(masked, "train", masks="instance", rule="energy", beta=0.3)
    assert found["depths"][-1]["top1"] == pytest.approx(value)


def test_fillers_have_no_part_in_the_mask_of_a_batch(masked):
    whole = evaluate_run(masked, "train", masks="batch", beta=0.2, batch_size=64)["depths"][-1]
    filled = evaluate_run(masked, "train", masks="batch", beta=0.2, batch_size=100)["depths"][-1]
    assert filled == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_the_kept_point_is_one_under_masks_and_keeps_their_weights(tmp_path):
    """Masks of the epoch that is kept came from the weights at its start: those of a run that ends there."""
    each = SOLVER.replace("refresh: 2", "refresh: 1")
    done = run(tmp_path / "best", *LAST, each, "training.keep=best", "training.monitor=train_loss", spec=SPEC)
    scores = {r["epoch"]: r["loss"] for r in read_metrics(done.workdir) if r["split"] == "train_exact"}
    kept = done.results["phases"][0]["best"]["epoch"]
    assert kept == min(range(2, 6), key=scores.__getitem__)
    solver = each if kept > 2 else "training.solver=sgd"
    before = run(tmp_path / "before", *LAST, solver, f"training.epochs={kept - 1}", spec=SPEC).network
    with np.load(done.workdir / "support" / "phase_1.npz") as stored:
        for name in ("block_1", "block_2", "head_2"):
            for key, value in before.arrays(name).items():
                np.testing.assert_array_equal(stored[f"{name}/{key}"], value)


def test_a_replaced_head_keeps_its_activations(tmp_path):
    head = "replace_head={head: {hidden_layers: 1, width: 3}, training: {epochs: 1}}"
    done = run(tmp_path, *LAST, SOLVER, "training.epochs=2", head, spec=SPEC)
    ordinary = evaluate_run(done.workdir)["depths"]
    assert evaluate_run(done.workdir, masks="instance")["depths"][0] == pytest.approx(ordinary[0], rel=1e-5)
    assert len(evaluate_run(done.workdir, masks="held")["depths"]) == len(ordinary)


def test_what_is_refused(masked, tmp_path, call):
    with pytest.raises(InputError, match="masks: received 'helt'; allowed: held, instance, batch"):
        evaluate_run(masked, masks="helt")
    for arguments, message in (
        ("--masks helt", "--masks: received 'helt'; allowed: held, instance, batch; did you mean 'held'?"),
        ("--rule energy", "--rule and --beta are about masks; give --masks too"),
        ("--masks instance --rule energy", "--rule energy with beta 0 leaves every unit in; give --beta above 0"),
    ):
        code, _, err = call(f"evaluate {masked} {arguments}")
        assert code == 2 and message in err and "Traceback" not in err
    plain = run(tmp_path, *LAST, "training.epochs=1", spec=SPEC).workdir
    code, _, err = call(f"evaluate {plain} --masks instance")
    assert code == 2 and "no finished phase in which solver alternation made masks" in err


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_file_of_weights_is_named(tmp_path, call, damage):
    folder = run(tmp_path, *LAST, SOLVER, "training.epochs=2", spec=SPEC).workdir
    file = folder / "support" / "phase_1.npz"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-50])
    code, _, err = call(f"evaluate {folder} --masks held")
    assert (
        code == 2 and str(file) in err and ("not there" if damage == "missing" else "damaged") in err and "Traceback" not in err
    )


@pytest.mark.parametrize("kind", ["pickle", "objects", "npy", "other_layer", "text", "outside"])
def test_weights_of_anothers_making_are_numbers_or_refused(masked, tmp_path, call, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(masked, "run")
    file = Path(folder) / "support" / "phase_1.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    first = next(iter(arrays))
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Payload()))
    elif kind == "npy":
        np.save(tmp_path / "a.npy", arrays[first])
        (tmp_path / "a.npy").rename(file)
    else:
        other = {"objects": np.array([Payload()], dtype=object), "text": np.full(arrays[first].shape, "x")}
        name = {"other_layer": "head_9/x", "outside": "../../x"}.get(kind, first)
        np.savez(file, allow_pickle=True, **{**arrays, name: other.get(kind, arrays[first])})
    code, out, err = call("evaluate run --masks held")
    assert (code, out) == (2, "") and "Traceback" not in err and err.startswith("error: "), err
    assert "phase_1.npz" in err or "block_1/" in err, err
    assert not (tmp_path / "MARKER").exists() and not (tmp_path.parent / "x.npy").exists()
