"""Convex networks trained stage by stage: where they end, what the gap says, and what is made of their filters."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of, some, spec_of, two_devices, weights
from convex_runs import FISTA, check_resumed, fista_of, problem, solving
from networks import GATED_HEAD as HEAD
from networks import TWO_LAYER as SPEC
from sklearn.linear_model import Lasso

from kerasgreedy.errors import InputError, SpecError
from kerasgreedy.network.build import build_network
from kerasgreedy.network.rectify import broken, rectified
from kerasgreedy.nn.penalties import as_matrix
from kerasgreedy.reports.path_plot import draw_path, path_problems
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.train.entry_points import load_network

STACK = f"""
name: stack
blocks:
  - activation: linear
  - [{{conv: 5, kernel_size: 3, use_bias: false}}, {{avg_pool: 2}}, {{standardize: channels}}]
auxiliary_head: {{layers: [{HEAD}]}}
"""
SGD = """
name: convex
strategy: convex
data: {dataset: digits, train_examples: 160, test_examples: 20, validation: 32}
training: {epochs: 2, batch_size: 32, objective: squared_error, optimizer: {name: sgd, learning_rate: 2e-3}}
"""


CCNN = """
name: ccnn
blocks:
  - [{random_features: 20, kernel_size: 3, gamma: 0.2}, {avg_pool: 2}, {standardize: places}]
  - [{conv: 4, kernel_size: 1, use_bias: false, activation: linear}, {random_features: 16, kernel_size: 2, gamma: 2}]
auxiliary_head: {layers: [{rows: true}]}
"""
BALL = ["training.regularizers=[{name: nuclear_ball, radius: 2, every: 2}]", "training.objective=cross_entropy",
        "training.solver={name: averaged, steps: 6, every: 2}"]  # fmt: skip


@pytest.fixture
def solve(tmp_path):
    return solving(tmp_path)


def actions(run):
    return [stage["action"] for stage in json.loads((run.workdir / "plan.json").read_text())]


@pytest.mark.slow
def test_the_optimum_meets_its_condition_and_the_gap_bounds_the_rest(solve):
    """In NumPy, float64: gradient A^T (A v - y) / n of each filter is -weight v / |v|, or at most weight long where v is 0."""
    run = solve(SPEC, FISTA)
    a, y, v = problem(run)
    told = fista_of(run)
    residual = y - a @ v.reshape(-1, 10)
    slopes = (a.T @ residual / len(a)).reshape(v.shape)
    norms, lengths = np.linalg.norm(v, axis=0), np.linalg.norm(slopes, axis=0)
    primal = 0.5 * np.mean(np.sum(residual**2, 1)) + 0.02 * norms.sum()
    t = min(1, 0.02 / lengths.max())
    dual = np.mean(np.sum(t * residual * y, 1)) - t**2 / 2 * np.mean(np.sum(residual**2, 1))
    assert told["converged"] and 0 <= told["duality_gap"] <= 1e-4 * told["objective"]
    assert dual <= primal <= told["objective"] + 1e-7  # the last point is no higher than where the gap was taken
    assert primal - dual < 3e-4 * primal
    assert lengths.max() < 0.02 * 1.002
    used = norms > 1e-3 * norms.max()
    np.testing.assert_allclose(slopes[:, used], (0.02 * v / np.where(norms, norms, 1))[:, used], atol=2e-4)
    assert told["filters"] == {"head_1/class_separable_1": [int(np.sum(norms > 0)), 60]} and np.any(norms == 0)
    gaps = [record["duality_gap"] for record in read_metrics(run.workdir) if record["split"] == "train"]
    assert min(gaps) >= 0 and gaps[-1] == told["duality_gap"] < gaps[0] / 100


def test_the_lasso_ends_where_scikit_learn_s_does(solve):
    """Its objective is |y - A w|^2 / (2 n) + alpha |w|_1, for each class on its own."""
    run = solve(SPEC, FISTA, "training.regularizers=[{name: l1, weight: 0.02}]", "training.solver.gap=1e-4")
    a, y, v = problem(run)
    for c in range(10):
        other = Lasso(0.02, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(a, y[:, c]).coef_
        values = [np.mean((y[:, c] - a @ w) ** 2) / 2 + 0.02 * np.abs(w).sum() for w in (v[..., c].ravel(), other)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_decay_ends_at_the_closed_form_with_a_gap(solve):
    """(A^T A / n + decay) w = A^T y / n."""
    sets = ["training.regularizers=[{name: l2, weight: 0.1}]", "training.solver={name: fista, tolerance: 1e-7, gap: 1e-7}"]
    run = solve(SPEC, FISTA, *sets)
    a, y, v = problem(run)
    w = np.linalg.solve(a.T @ a / len(a) + 0.1 * np.eye(a.shape[1]), a.T @ y / len(a))
    np.testing.assert_allclose(v.reshape(-1, 10), w, atol=2e-3 * np.abs(w).max())
    best = 0.5 * np.mean(np.sum((y - a @ w) ** 2, 1)) + 0.05 * np.sum(w**2)
    assert fista_of(run)["objective"] - fista_of(run)["duality_gap"] - 1e-6 <= best <= fista_of(run)["objective"] + 1e-7


@pytest.mark.slow
def test_two_starts_end_at_one_objective_and_two_of_the_twin_do_not(solve):
    ends = []
    for start in ("zero", "random"):
        sets = [f"final_head.layers.0.start={start}", "training.regularizers.0.weight=0.06"]
        run = solve(SPEC, FISTA, *sets, folder=start)
        ends.append(fista_of(run)["objective"])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
    twins = []
    for seed in (0, 1):
        sets = ["final_head.layers.0.gates=own", "final_head.layers.0.gated_conv=2", "training.solver={name: sgd}",
                f"seed={seed}", "data.train_examples=null", "training.optimizer.learning_rate=1", "training.epochs=60",
                "training.batch_size=70", "training.regularizers.0.weight=0.01"]  # fmt: skip
        run = solve(SPEC, FISTA, *sets, folder=f"twin_{seed}")
        last = [record for record in read_metrics(run.workdir) if record["split"] == "train"][-1]
        twins.append(last["loss"] + last["penalty"])
    assert abs(twins[0] - twins[1]) > 2e-3 * twins[0]


@pytest.mark.slow
def test_a_path_ends_where_its_last_problem_does(solve):
    whole = fista_of(solve(SPEC, FISTA, "training.regularizers.0.weight=0.03"))
    sets = ["training.regularizers.0.weight=0.03", "training.solver.path=[10, 3, 1]"]
    told = fista_of(solve(SPEC, FISTA, *sets, folder="path"))
    assert [solved["factor"] for solved in told["path"]] == [10, 3, 1]
    assert told["objective"] == pytest.approx(whole["objective"], rel=2e-4)
    objectives = [solved["objective"] for solved in told["path"]]
    assert objectives == sorted(objectives, reverse=True) and objectives[-1] == told["objective"]
    assert [solved["epoch"] for solved in told["path"]] == sorted(solved["epoch"] for solved in told["path"])


def test_at_the_strongest_penalty_of_a_path_nothing_is_used(solve):
    """Above max |A_g^T y| / n the optimum is 0, and the objective |y|^2 / 2 = 1/2."""
    told = fista_of(solve(SPEC, FISTA, "training.regularizers.0.weight=5", "training.epochs=3"))
    assert told["filters"] == {"head_1/class_separable_1": [0, 60]}
    assert told["objective"] == pytest.approx(0.5) and told["duality_gap"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("at", some(14, slow=[1, 6, 11]))
@pytest.mark.parametrize("recipe", some("fista", slow=["sgd"]))
def test_stopped_and_resumed_equals_never_stopped(solve, monkeypatch, recipe, at):
    """Fits, a hinge, taken filters, a second stage on standardized maps; or a path of full gradients."""
    if recipe == "sgd":
        hinge = "[{name: gate_hinge, weight: 0.1}, {name: group_lasso, weight: 1e-4}]"
        text, sets = SGD, [f"training.regularizers={hinge}", "auxiliary_head.layers.0.paired=true"]
        sets += ["training.optimizer.learning_rate=2e-4", "convex={rectify: true, images: 50}"]
    else:
        text, sets = (
            FISTA,
            ["training.epochs=6", "training.solver.path=[3, 1]", "training.batch_size=50", "training.solver.power_iterations=3"],
        )
    check_resumed(solve, monkeypatch, at, STACK, text, *sets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "recipe", "sets"), some(("stack", "sgd", []), slow=[("stack", "fista", []), ("ccnn", "sgd", ["ball"])])
)
def test_two_devices_equal_one(solve, spec, recipe, sets):
    text, recipe = {"stack": STACK, "ccnn": CCNN}[spec], {"sgd": SGD, "fista": FISTA}[recipe]
    sets = [*(BALL if sets else []), "training.epochs=2", "training.batch_size=32", "training.optimizer.learning_rate=2e-4"]
    one = solve(text, recipe, *sets, folder="one")
    two = solve(text, recipe, *sets, folder="two", strategy=two_devices())
    for key, value in weights(one.workdir).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(weights(two.workdir)[key], value, atol=2e-5 * max(1, np.abs(value).max()), err_msg=key)


def test_the_next_block_takes_the_filters_of_largest_norm(solve):
    run = solve(STACK, SGD)
    network = load_network(run.workdir)
    v = np.asarray(network.component("head_1").layers[-1].kernel, np.float64).reshape(9, -1)
    norms = np.linalg.norm(v, axis=0)
    best = np.argsort(-norms)[:5]
    taken = np.asarray(network.component("block_2").get_layer("conv_1").kernel).reshape(9, -1)
    np.testing.assert_allclose(taken, (v / norms)[:, best], rtol=1e-5, atol=1e-7)
    entry = next(stage for stage in run.results["phases"] if stage.get("action") == "filters")
    assert (entry["of"], entry["filters"]) == (60, 5) and entry["norm_share"] == pytest.approx(norms[best].sum() / norms.sum())
    assert actions(run) == ["fit", "train", "filters", "fit", "train"]


def test_filters_that_keep_to_their_sides_are_an_ordinary_network():
    """v = a g with a > 0 does, on every patch; then relu gives what the gates do, and nothing is broken."""
    spec = spec_of(SPEC, "input_shape=[8, 8, 1]", "classes=10", "final_head.layers.0.paired=true").value
    network = build_network(spec)
    gated, last = network.component("head_1").layers[-2:]
    rng = np.random.default_rng(0)
    a = rng.uniform(0.1, 1, (1, 12, 10)) * (rng.uniform(size=(1, 12, 10)) < 0.5)
    last.kernel.assign(np.asarray(gated.kernel).reshape(9, 12, 1) * a)
    smaller, written = rectified(network, spec, "head_1")
    x = rng.normal(size=(5, 8, 8, 1)).astype(np.float32)
    one, two = network.logits(x)[0], smaller.logits(x)[0]
    assert np.min(one) < 0 < np.max(one)  # pairs leave both signs
    np.testing.assert_allclose(one, two, atol=1e-6 * np.abs(one).max())
    head = written.blocks[0].head.layers[-1]
    assert (head.gated_conv, head.gates) == (np.count_nonzero(a), "own")
    found = broken(network, smaller, "head_1", [x])
    assert (found.share, found.size, found.same_decision) == (0, 0, 1) and found.largest_difference < 1e-6


def test_filters_off_their_sides_are_counted():
    """v = -g is wrong on every patch that it does not give 0."""
    spec = spec_of(SPEC, "input_shape=[8, 8, 1]", "classes=10").value
    network = build_network(spec)
    gated, last = network.component("head_1").layers[-2:]
    last.kernel.assign(-np.repeat(np.asarray(gated.kernel).reshape(9, 6, 1), 10, axis=2))
    smaller, _ = rectified(network, spec, "head_1")
    found = broken(network, smaller, "head_1", [np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)])
    assert (found.share, found.size) == (1, 1) and found.largest_difference > 0.5
    last.kernel.assign(np.zeros(last.kernel.shape))
    with pytest.raises(InputError, match="all filters are zero"):
        rectified(network, spec, "head_1")


@pytest.mark.slow
def test_gate_hinge_pulls_filters_to_their_sides(solve):
    sets = ["final_head.layers.0.paired=true", "convex={rectify: true}", "training.epochs=20"]
    shares = []
    for weight in (1e-6, 1.0):
        run = solve(SPEC, SGD, *sets, f"training.regularizers=[{{name: gate_hinge, weight: {weight}}}]", folder=f"w{weight}")
        shares.append(run.results["phases"][-1]["broken"]["size"])
    assert shares[1] < 0.05 * shares[0]


@pytest.mark.slow
def test_gates_without_filters_are_removed_and_nothing_changes(solve):
    prune = "prune={zeros: true, importance: magnitude_l2}"  # of the head, where nothing is said
    sets = ["training.regularizers.0.weight=0.07", "training.epochs=200", "data.validation=20", "training.batch_size=65"]
    before, after = solve(SPEC, FISTA, *sets, folder="before"), solve(SPEC, FISTA, *sets, prune)
    _, _, v = problem(before)
    used = int(np.any(v != 0, axis=(0, 2)).sum())
    entry = after.results["phases"][-1]
    assert entry["filters"] == {"head_1/gated_conv_1": [6, used]} and 0 < used < 6
    assert entry["validation"]["before"] == pytest.approx(entry["validation"]["after"])
    np.testing.assert_allclose(problem(after)[2], v[:, np.any(v != 0, axis=(0, 2))])


def test_weights_and_costs_at_the_paper_s_size():
    """K = 49 patches of h = 108 numbers, P = 1,024: 2 K h P multiply-adds for the sums, h P for each class; the twin's K h P."""
    text = SPEC.replace("gated_conv: 6, kernel_size: 3, stride: 2", "gated_conv: 1024, kernel_size: 6, stride: 4")
    sizes = ["input_shape=[32, 32, 3]", "classes=10"]
    head = build_network(spec_of(text, *sizes).value).architecture.heads[0]
    assert (head.parameters, head.multiply_adds) == (1_105_920, 2 * 49 * 108 * 1024 + 1_105_920)
    twin = build_network(spec_of(text, *sizes, "final_head.layers.0.gates=own").value).architecture.heads[0]
    assert (twin.parameters, twin.multiply_adds) == (120_832, 49 * 108 * 1024 + 10_240)


def singular_values(network, head):
    return np.linalg.svd(as_matrix(network.component(head).layers[-1].kernel).numpy(), compute_uv=False)


def test_a_convexified_network_stays_in_its_ball_and_its_filters_go_on(solve):
    run = solve(CCNN, SGD, *BALL, "training.optimizer.learning_rate=0.2")
    network = load_network(run.workdir)
    for head in ("head_1", "head_2"):
        assert 1.9 < singular_values(network, head).sum() < 2 + 1e-5  # a mean of members is a member
    vectors, sizes, _ = np.linalg.svd(as_matrix(network.component("head_1").layers[-1].kernel).numpy(), full_matrices=False)
    taken = np.asarray(network.component("block_2").get_layer("conv_1").kernel).reshape(20, 4)
    np.testing.assert_allclose(np.abs(np.sum(taken * vectors[:, :4], axis=0)), 1, atol=1e-3)
    entry = next(stage for stage in run.results["phases"] if stage.get("action") == "filters")
    assert entry["norm_share"] == pytest.approx(sizes[:4].sum() / sizes.sum(), rel=1e-3)


def test_the_mean_of_the_last_points_is_kept(solve, monkeypatch):
    """Of steps 4, 6, 8 of 8, as their weights were."""
    seen = []
    plain = TrainStep.result

    def result(self, batch, number):
        found = plain(self, batch, number)
        seen.append(np.asarray(self.variables[0]))
        return found

    monkeypatch.setattr(TrainStep, "result", result)
    sets = [
        "training.regularizers=[]",
        "training.objective=cross_entropy",
        "training.solver={name: averaged, steps: 6, every: 2}",
    ]
    run = solve(CCNN, SGD, *sets, "auxiliary_head.layers.0.start=random")
    kept = np.asarray(load_network(run.workdir).component("head_1").layers[-1].kernel)
    np.testing.assert_allclose(kept, np.mean([seen[3], seen[5], seen[7]], axis=0), atol=1e-6)


@pytest.mark.parametrize("at", some(slow=[3, 6, 12]))
def test_a_convexified_network_resumes_to_the_bit(solve, monkeypatch, at):
    check_resumed(solve, monkeypatch, at, CCNN, SGD, *BALL)


@pytest.mark.slow
def test_in_the_ball_the_gap_bounds_how_far_the_optimum_is(solve):
    """Squared error: with f* from a longer run, objective - gap <= f* <= objective; and the ball is full."""
    sets = ["training.regularizers=[{name: nuclear_ball, radius: 0.2}]", "training.epochs=300"]
    spec = CCNN.replace("  - [{conv: 4", "#").replace("  - [{random", "  - [{random")
    run = solve(spec, FISTA, *sets, "training.solver.gap=1e-3")
    longer = solve(spec, FISTA, *sets, "training.solver.gap=1e-5", folder="longer")
    told, best = fista_of(run), fista_of(longer)["objective"]
    assert told["converged"] and told["duality_gap"] <= 1e-3 * told["objective"]
    assert told["objective"] - told["duality_gap"] <= best <= told["objective"]
    assert singular_values(load_network(run.workdir), "head_1").sum() == pytest.approx(0.2, abs=1e-5)


@pytest.mark.slow
def test_a_path_of_growing_balls_ends_where_the_largest_does_and_is_drawn(solve):
    spec = CCNN.replace("  - [{conv: 4", "#").replace("  - [{random", "  - [{random")
    sets = ["training.regularizers=[{name: nuclear_ball, radius: 0.2}]", "training.epochs=90", "training.solver.gap=1e-3"]
    whole = solve(spec, FISTA, *sets)
    run = solve(spec, FISTA, *sets, "training.solver.path=[0.25, 0.5, 1]", folder="path")
    told = fista_of(run)
    assert told["objective"] == pytest.approx(fista_of(whole)["objective"], rel=2e-3)
    objectives = [solved["objective"] for solved in told["path"]]
    assert objectives == sorted(objectives, reverse=True) and objectives[0] > objectives[-1] * 1.01
    seen = {record["factor"]: record for record in read_metrics(run.workdir) if record["split"] == "train"}
    assert list(seen) == [0.25, 0.5, 1]
    phases = path_problems(run.results["phases"], read_metrics(run.workdir))
    line, *more = draw_path(phases).axes[0].get_lines()
    assert list(phases) == ["block_1"] and not more  # no validation images
    np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 1])
    np.testing.assert_allclose(line.get_ydata(), [100 * record["accuracy"] for record in seen.values()])
    assert not path_problems(whole.results["phases"], read_metrics(whole.workdir))


@pytest.mark.slow
def test_a_rectified_run_ends_whatever_its_solver_was_and_however_few_filters_are_left(solve):
    """What is done is not refused again for the network that came of it."""
    sets = ["training.epochs=40", "training.regularizers.0.weight=0.06", "convex={rectify: true, images: 60}"]
    run = solve(STACK, FISTA, *sets, "data.validation=0", "auxiliary_head.layers.0.padding=1", "blocks.1.0.conv=9")
    entries = [stage for stage in run.results["phases"] if stage.get("action") == "rectify"]
    assert len(entries) == 2 and entries[0]["filters"][0] < 60
    assert 0 <= entries[0]["broken"]["share"] <= 1 and entries[0]["broken"]["same_decision"] > 0
    assert actions(run) == ["fit", "train", "filters", "fit", "train", "rectify", "rectify"]


def test_gates_are_pruned_stage_by_stage(solve):
    run = solve(STACK, SGD, "prune={keep: 0.5}", "training.epochs=1", "training.optimizer.learning_rate=1e-4")
    kept = [stage["filters"] for stage in run.results["phases"] if stage.get("action") == "prune"]
    assert kept == [{"head_1/gated_conv_1": [6, 3]}, {"head_2/gated_conv_1": [6, 3]}]
    assert actions(run) == ["fit", "train", "prune", "filters", "fit", "train", "prune"]


@pytest.mark.parametrize("started", [False, True])
def test_a_head_in_the_place_of_another_is_fitted(solve, started):
    """Its layers have the names of those before; and with the weights of another run they are the only new ones."""
    rows = "{random_features: 8, kernel_size: 2}, {standardize: places}, {rows: true}"
    head = f"replace_head={{head: {{layers: [{rows}]}}, training: {{epochs: 1}}}}"
    spec = f"name: s\nblocks: [{{conv: 3}}]\nfinal_head: {{layers: [{{standardize: places}}, {rows}]}}\n"
    plain = ["training.objective=cross_entropy", "strategy=end_to_end", "training.epochs=1"]
    more = ["strategy=compress", f"start_from={solve(spec, SGD, *plain, folder='first').workdir}"] if started else []
    run = solve(spec, SGD, *plain, head, *more)
    assert actions(run)[-3:] == ["replace_head", "fit", "train"]
    arrays = load_network(run.workdir).arrays("head_1")
    assert np.abs(arrays["head_1/standardize_1/mean"]).max() > 0 and arrays["head_1/standardize_1/factor"] != 1


def test_random_features_in_16_bits_are_those_that_were_fitted(solve):
    run = solve(CCNN, SGD, *BALL, "precision=mixed_bfloat16", "training.epochs=1", "training.solver={name: sgd}")
    network = load_network(run.workdir)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    layer = network.component("block_1").layers[1]
    exact = np.asarray(layer(x))
    network.compute_in("mixed_bfloat16", ["block_1"])
    rounded = np.asarray(tf.cast(network.component("block_1").layers[1](x), tf.float32))
    assert np.sqrt(np.mean((rounded - exact) ** 2)) < 0.02 * np.sqrt(np.mean(exact**2))


BAD = [
    (CCNN, ["training.solver={name: sgd}", "convex={rectify: true}", "training.regularizers=[]"], "head_1 has no fixed gates"),
    (STACK, ["auxiliary_head.layers=[{avg_pool: 2}, {gated_conv: 4, kernel_size: 3, class_separable: true}]"],
     "nothing before it"),
    (STACK, ["prune={keep: 3, components: [block_2]}"], "trains heads only; allowed: heads"),
    (SPEC, ["training.objective=cross_entropy"], "gap: the duality gap is known for squared_error"),
    (SPEC, ["training.optimizer.weight_decay=0.1"], "gap: the duality gap is known for squared_error"),
    (SPEC, ["training.solver={name: fista, path: [2, 1]}", "training.regularizers=[]"], "path: there is no penalty"),
    (SPEC, ["training.solver={name: fista, path: [3, 2, 1]}", "training.epochs=2"], "received 3 problems for 2 epochs"),
    (SPEC, ["training.regularizers=[{name: nuclear_ball, radius: 1}]"], "allowed: none: no layer has what nuclear_ball is about"),
    (CCNN, ["training.regularizers=[{name: group_lasso, weight: 1, of: heads}]"], "such a kernel; allowed: block_2/conv_1"),
    (CCNN, ["training.solver={name: averaged, steps: 2, every: 10}"], "received 2; every is 10"),
    (CCNN, ["training.solver={name: averaged}", "strategy=dsd"], "would not be as sparse"),
    (CCNN, ["training.solver={name: sgd}", "training.regularizers=[{name: nuclear_ball, radius: 0}]"], "radius"),
    (CCNN, ["training.regularizers=[{name: nuclear_ball, radius: 1, every: 5}]"], "solver 'fista' projects after each step"),
    (CCNN, ["training.solver={name: averaged}", "training.keep=best"], "ends with the mean of the last points"),
    (CCNN, ["training.solver={name: sgd}", "prune={keep: 3}"], "no block has filters|head_1"),
    (CCNN, ["blocks.0.0.kernel_size=9"], "a 9x9 patch does not fit a side of 8"),
    (CCNN, ["training.solver={name: sgd}", "blocks.1.0.conv=21"], "block_2/conv_1 has 21 filters; head_1 gives 20"),
    (SPEC, ["final_head.layers.0.kernel_size=9"], "a 9x9 patch does not fit a side of 8"),
    (SPEC, ["final_head.layers.0.gates=own"], "received 'fista', and phase trains head_1/gated_conv_1; allowed: heads of layers"),
    (SPEC, ["final_head.layers.0={gated_conv: 4, paired: true}"], "'paired'|paired: is of class_separable"),
    (SPEC, ["final_head.layers.0={gated_conv: 4, class_separable: true, gates: own, paired: true}"], "no fixed gates to pair"),
    (SPEC, ["blocks.0={gated_conv: 4, class_separable: true}"], "a block cannot end in gated_conv with class_separable: true"),
    (SPEC, ["training.regularizers=[{name: gate_hinge, weight: 1}]"], "gate_hinge', which is a sum over all images"),
    (SPEC, ["training.solver.path=[1, 3]"], "allowed: falling, for penalties become weaker"),
    (SPEC, ["training.solver.path=[3, 1, 2]"], "numbers in falling order, or with nuclear_ball in rising order"),
    (SPEC, ["training.solver.path=[1, 1]"], "numbers in falling order"),
    (CCNN, ["training.regularizers=[{name: nuclear_ball, radius: 1}]", "training.solver.path=[3, 1]"], "allowed: rising"),
    (CCNN, ["training.regularizers=[{name: nuclear_ball, radius: 1}, {name: l2, weight: 1}]", "training.solver.path=[3, 1]"],
     "would change a penalty and a ball at the same time"),
    (SPEC, ["training.solver.gap=2"], "gap"),
    (SPEC, ["strategy=greedy", "convex={}"], "use strategy: convex"),
    (STACK, ["blocks.1.0.conv=500"], r"block_2/conv_1 has 500 filters; head_1 gives 60"),
    (STACK, ["blocks.1.0.kernel_size=5"], r"filters of 5x5x1, and those of head_1 are 3x3x1"),
    (STACK, ["blocks.1.0={conv: 5, kernel_size: 3}"], r"it has to be \{conv: n, kernel_size: 3, use_bias: false\}"),
    (STACK, ["training.solver={name: sgd}", "blocks.0={layers: [{activation: linear}], head: {pool_to: 2}}"],
     "takes the filters of block_2 from head_1, which has none to give"),
    (SPEC, ["final_head={}", "training.solver={name: sgd}", "convex={rectify: true}"], "head_1 has no fixed gates"),
    (SPEC, ["final_head={pool_to: 2}", "training.solver={name: sgd}", "training.regularizers=[{name: gate_hinge, weight: 1}]"],
     "allowed: none: no layer has what gate_hinge is about"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "overrides", "message"), BAD)
def test_what_cannot_be_is_refused(solve, spec, overrides, message):
    with pytest.raises(SpecError, match=message):
        solve(spec, FISTA, *overrides)


def test_more_gates_than_patterns_end_the_run_with_one_error(solve):
    text = SPEC.replace("gated_conv: 6, kernel_size: 3", "gated_conv: 6, kernel_size: 1")
    with pytest.raises(InputError, match=r"head_1/gated_conv_1: received 6 gates.*allowed: up to 2"):
        solve(text, FISTA)


def test_fits_are_shown_in_the_plan_and_left_out_where_weights_are_given(solve):
    recipe = recipe_of(FISTA).value
    assert recipe.training.solver.factors == [1.0]
    first = solve(SPEC, FISTA, "training.epochs=2", folder="first")
    again = solve(SPEC, FISTA, "training.epochs=2", f"start_from={first.workdir}", folder="again")
    assert actions(again) == ["train"]
    one, two = (np.asarray(load_network(run.workdir).component("head_1").layers[-2].kernel) for run in (first, again))
    np.testing.assert_array_equal(one, two)
