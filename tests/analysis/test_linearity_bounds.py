"""The bounds of eq. 29, a case in which they hold and gradient descent finds the optimum; what is refused; the command."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, spec_of
from test_linearity import CONV, DENSE, chain, images

from kerasgreedy.analysis.linearity import forward, linearity, product, too_large
from kerasgreedy.analysis.linearity_bounds import bounds
from kerasgreedy.analysis.linearity_source import linearity_of_run, linearity_of_spec
from kerasgreedy.errors import InputError, SpecError
from kerasgreedy.network.build import build_network

ONE_UNIT = DENSE.replace("dense: 2", "dense: 1").replace("1, 1, 2", "1, 1, 3")


def test_bounds_of_matrices_worked_out_by_hand():
    m = 4
    q = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2  # orthogonal
    fits = bounds(q[:, :2] * np.sqrt([0.95 * m, 1.02 * m]), 2)
    assert fits["holds"] and fits["epsilon"] == pytest.approx(0.05) and fits["rank"] == 2
    assert fits["lambda2_min"] == pytest.approx(3.8) and fits["lambda2_max"] == pytest.approx(4.08)
    assert (fits["lower"], fits["upper"]) == (pytest.approx(3.6), pytest.approx(4.4))
    assert bounds(2 * q, 4)["epsilon"] == pytest.approx(0.1)
    low = bounds(q[:, :2] * np.sqrt([0.95, 1.02]), 2)  # right but for its scale
    assert not low["holds"] and low["scale"] == pytest.approx(np.sqrt(2 * 4 / 1.97)) and low["epsilon"] == 0
    assert bounds(q[:, :2] * np.sqrt([0.95, 1.02]) * low["scale"], 2)["holds"]
    wide = bounds(q[:, :2] * np.sqrt([0.8 * m, 1.0 * m]), 2)
    assert wide["scale"] is None and wide["ratio"] == pytest.approx(1.25) and "11/9" in wide["verdict"]
    flat = bounds(q[:2] * 2, 4)
    assert flat["lambda2_min"] == 0 and flat["lambda2_min_nonzero"] == pytest.approx(4) and flat["rank"] == 2
    assert flat["verdict"].startswith("more products of weights (4) than outputs (2)") and flat["ratio"] is None
    twice = bounds(q[:, [0, 0, 1]], 3)
    assert twice["rank"] == 2 and "the rank is 2 of 3 columns" in twice["verdict"]
    nothing = bounds(np.zeros((2, 2)), 0)
    assert nothing["rank"] == 0 and nothing["lambda2_min_nonzero"] is None and nothing["zero_columns"] == 2


@pytest.fixture(scope="module")
def isometry():
    """One hidden unit, orthogonal inputs: U^T U = (X^T X) (x) I is m times a diagonal near 1. Network, X and its report."""
    network = build_network(spec_of(ONE_UNIT).value)
    network.load_arrays("block_1", {"block_1/dense_1/kernel": np.array([[1.0], [0.1], [0.1]])})  # every q > 0
    hadamard = np.array([[1, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1]])
    x = np.sqrt(2) * hadamard * [1.02, 0.99, 1.0]
    return network, x, linearity(network, x[:, None, None])


def test_the_condition_holds_for_one_hidden_unit_and_orthogonal_inputs(isometry):
    _, _, found = isometry
    assert found["supports"] == [{"layer": "block_1/activation_1", "share": 1.0}]
    assert found["outputs"] == 8 and found["columns"] == 6 and found["bias_columns"] == 2
    assert found["bounds"]["lambda2_min"] == pytest.approx(8 * 0.99**2) and found["bounds"]["zero_columns"] == 0
    assert found["bounds"]["lambda2_max"] == pytest.approx(8 * 1.02**2)
    assert found["bounds"]["holds"] and found["bounds"]["epsilon"] == pytest.approx(1.1 - 1.02**2)
    assert not found["bounds_with_biases"]["holds"]


def test_gradient_descent_finds_the_global_optimum_where_the_condition_holds(isometry):
    """(P1) from random starts, against the best V of rank 1 in closed form: with X = Q R it is that of Q^T Y."""
    network, x, _ = isometry
    steps = chain(network)
    u = product(steps, x, forward(steps, x)[1])[0][:, :6]
    rng = np.random.default_rng(3)
    y = x @ rng.normal(size=(3, 2)) + rng.normal(size=(4, 2))  # of rank 2 and with noise: no fit is perfect
    best = np.sum(y**2) - np.linalg.svd(np.linalg.qr(x)[0].T @ y, compute_uv=False)[0] ** 2
    assert best > 1
    for _ in range(20):
        first, second = rng.normal(size=3), rng.normal(size=2)
        for _ in range(4000):
            residual = (u @ np.kron(first, second) - y.ravel()) @ u
            slope = 2 * residual.reshape(3, 2)
            first, second = first - 0.002 * slope @ second, second - 0.002 * first @ slope
        assert np.sum((u @ np.kron(first, second) - y.ravel()) ** 2) == pytest.approx(best, rel=1e-9)


# Refusals and the command


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            "{residual: [{conv: 2}]}",
            "block_1/residual_1: 'residual' cannot be written as one product of weights; allowed: a plain chain",
        ),
        ("{branches: [[{conv: 2}], [{conv: 2}]]}", "block_1/branches_1: 'branches' cannot"),
        ("{conv: 2, activation: gelu}", "block_1/activation_1: received 'gelu'; allowed: relu, positive_hard_threshold, linear"),
    ],
)
def test_what_is_no_chain_is_refused(block, message):
    network = build_network(spec_of(f"name: r\ninput_shape: [4, 4, 2]\nclasses: 2\nblocks: [{block}]").value)
    with pytest.raises(InputError, match="^" + message.replace("{", r"\{").split("(")[0]):
        linearity(network, images(network))


def test_arguments_that_cannot_be(tmp_path):
    network = build_network(spec_of(CONV).value)
    with pytest.raises(InputError, match=r"depth: received 3; allowed: 1, 2"):
        linearity(network, images(network), 3)
    with pytest.raises(InputError, match="weights: received 'kernels'; allowed: kernel, matrix; did you mean 'kernel'"):
        linearity(network, images(network), 1, "kernels")
    (tmp_path / "conv.yaml").write_text(CONV)
    with pytest.raises(InputError, match="examples: received 0; allowed: 1 or more"):
        linearity_of_spec(tmp_path / "conv.yaml", examples=0)
    (tmp_path / "bad.yaml").write_text(CONV.replace("[6, 4, 2]", "[5, 4, 2]"))
    with pytest.raises(SpecError, match="bad.yaml:6"):
        linearity_of_spec(tmp_path / "bad.yaml")


def test_a_u_that_would_be_too_large_is_not_built():
    network = build_network(spec_of(CONV).value)
    # 3x3x8x2 weights and 2 biases, 2x2x2x3 and 3, 3x3 and 3.
    columns = ((144 + 2) * 24 + 3) * 9 + 3
    text = (
        f"U of 3 examples has {columns:,} columns and {9 * columns:,} entries ({72 * columns:,} bytes); allowed: 100,000 entries"
    )
    with pytest.raises(InputError) as error:
        linearity(network, images(network), limit=100_000)
    assert str(error.value).startswith(text) and "fewer examples" in str(error.value)
    with pytest.raises(InputError, match="weights kernel"):
        linearity(network, images(network), weights="matrix", limit=100_000)
    huge = {"columns": 10**40, "entries": 10**41, "largest": 10**41}
    assert "over 10^40 columns" in too_large(huge, 2, "kernel", 5)


KEYS = {
    "place", "images", "spec", "depth", "examples", "outputs", "weights", "layers", "supports", "columns", "bias_columns",
    "entries", "bytes", "product", "keras", "bounds", "bounds_with_biases", "linear_in",
}  # fmt: skip


def test_command_on_a_spec(command, tmp_path):
    spec = tmp_path / "conv.yaml"
    spec.write_text(CONV)
    code, out, _ = command("analyze", "linearity", spec, "--examples", 4, "--depth", 1, "--seed", 5, "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and set(found) == KEYS and found["images"] == "random" and found["outputs"] == 12
    assert found == json.loads(json.dumps(linearity_of_spec(spec, (), 4, 1, seed=5)))
    code, out, _ = command("analyze", "linearity", spec, "--set", "classes=2", "--weights", "kernel")
    assert code == 0 and "the theorem does not apply" in out and "two layers of weights; here are 3" in out
    code, _, err = command("analyze", "linearity", spec, "--part", "test")
    assert code == 2 and "--part cannot stand beside a spec" in err
    code, _, err = command("analyze", "linearity", spec, "--limit", "1000")
    assert code == 2 and "allowed: 1,000 entries" in err


def test_command_on_a_run(command, finished):
    run = finished.workdir
    before = sorted(run.rglob("*"))
    code, out, _ = command("analyze", "linearity", run, "--depth", 1, "--examples", 1, "--part", "test", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and set(found) == KEYS and found["images"] == "test" and found["spec"] == "tiny"
    assert found["product"]["relative"] < 1e-13 and found["keras"]["relative"] < 1e-5
    assert found["columns"] == 9 * 4 * (9 * 4 * 4) * (16 * 10)
    assert sorted(run.rglob("*")) == before
    code, _, err = command("analyze", "linearity", run, "--depth", 3)
    assert code == 2 and "block_3/residual_1" in err
    code, _, err = command("analyze", "linearity", run, "--seed", 1)
    assert code == 2 and "--seed cannot stand beside a run folder" in err
    with pytest.raises(InputError, match="part: received 'tests'; allowed: validation, test, train; did you mean 'test'"):
        linearity_of_run(run, "tests")
    with pytest.raises(InputError, match="examples: received 51; allowed: up to 50"):
        linearity_of_run(run, "test", 51)


def test_help_is_light():
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules]))\n"
        "sys.argv = ['kerasgreedy', 'analyze', 'linearity', '--help']\n"
        "from kerasgreedy.cli.main import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and done.stdout.strip().endswith("[]")
