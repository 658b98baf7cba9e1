"""Bad settings of solver `alternation`: exit code 2 and one clear error at its place; good ones come back from a run folder."""

from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import assert_clear
from conftest import recipe_of, spec_of

from kerasgreedy.plan.preparation import prepare
from kerasgreedy.solvers.alternation import held_masks
from kerasgreedy.spec.load import dump, load_recipe

pytestmark = pytest.mark.usefixtures("place")

OFF = "{name: alternation, warm_up_epochs: 0}"
RELU, ELU = "{activation: relu}", "{activation: elu}"
FLIP = ", augment: {horizontal_flip: true}"
DATA = "dataset: digits, train_examples: 60, test_examples: 20, validation: 10"


class Bad(NamedTuple):
    """`solver` stands from column 12 of line 7 on; `keys` are put into an alternation without warm-up, from column 50 on."""

    id: str
    expected: tuple[str, ...]
    keys: str | None = None
    solver: str = "sgd"
    strategy: str = "end_to_end"
    data: str = ""
    more: str = ""  # sections after training, from line 8 on
    defaults: str = RELU

    @property
    def recipe(self) -> str:
        solver = f"{{name: alternation, warm_up_epochs: 0, {self.keys}}}" if self.keys is not None else self.solver
        head = f"name: r\ndata: {{{DATA}{self.data}}}\nstrategy: {self.strategy}\n"
        return f"{head}training:\n  epochs: 3\n  batch_size: 10\n  solver: {solver}\n{self.more}"


def of_stored(key: str, value: str) -> Bad:
    return Bad(
        f"batch_{key}",
        (f":7:63: training.solver.{key}: mode 'batch' has no use for it; leave it out",),
        f"mode: batch, {key}: {value}",
    )


def of_shared(key: str, value: str) -> Bad:
    return Bad(f"instance_{key}", (f":7:50: training.solver.{key}: mode 'instance' has no use for it",), f"{key}: {value}")


CASES = [
    Bad(
        "name",
        (":7:12: training.solver.name: received 'alternaton'; allowed: sgd, averaged, alternation, fista", "?alternation"),
        None,
        "{name: alternaton}",
    ),
    Bad(
        "bare_name",
        (":7:3: training.solver: received 'alternate'; allowed: sgd, averaged, alternation, fista", "?alternation"),
        None,
        "alternate",
    ),
    Bad(
        "number",
        (":7:3: training.solver: received 3; allowed: sgd, averaged, alternation, fista, or a mapping with `name`",),
        None,
        "3",
    ),
    Bad(
        "of_sgd",
        (":7:23: training.solver.mode: unknown key with name 'sgd'; it goes with name: alternation",),
        None,
        "{name: sgd, mode: batch}",
    ),
    Bad("key", (":7:50: training.solver.hold_pool: unknown key", "?hold_pools"), "hold_pool: true"),
    Bad("mode", ("training.solver.mode: received 'bach'; allowed: 'instance' or 'batch'", "?batch"), "mode: bach"),
    Bad("rule", ("training.solver.rule: received 'positiv'; allowed: 'positive' or 'energy'", "?positive"), "rule: positiv"),
    Bad("under_mask", ("under_mask: received 'relu'; allowed: 'linear' or 'activation'",), "under_mask: relu"),
    Bad("store", ("store: received 'dsk'; allowed: 'auto', 'memory' or 'disk'", "?disk"), "store: dsk"),
    Bad("vote", ("vote: received 'majorty'; allowed: 'energy' or 'majority'", "?majority"), "mode: batch, vote: majorty"),
    Bad("hold_pools", ("training.solver.hold_pools: received 'yes'; allowed: boolean",), "hold_pools: yes"),
    Bad(
        "beta_negative",
        (":7:50: training.solver.beta: received -1; allowed: greater than or equal to 0 or 'warm_up'",),
        "beta: -1",
    ),
    Bad("beta_quoted", ("training.solver.beta: received '0.1'; allowed: number or 'warm_up'",), "beta: '0.1'"),
    Bad("beta_word", ("training.solver.beta: received 'warmup'", "?warm_up"), "beta: warmup"),
    Bad("beta_nan", ("training.solver.beta: received nan; allowed: a finite number",), "beta: .nan"),
    Bad("beta_inf", ("training.solver.beta: received inf; allowed: a finite number",), "beta: .inf"),
    Bad(
        "beta_instance",
        (":7:50: training.solver.beta: received 'warm_up', which is of mode 'batch'; allowed: a number",),
        "beta: warm_up",
    ),
    Bad(
        "beta_majority",
        (":7:79: training.solver.beta: received 'warm_up'; a majority vote takes a number",),
        "mode: batch, vote: majority, beta: warm_up",
    ),
    Bad(
        "beta_of_majority",
        (":7:79: training.solver.beta_of: a majority vote compares beta with x^2",),
        "mode: batch, vote: majority, beta_of: batch",
    ),
    Bad(
        "beta_of_nothing",
        (":7:63: training.solver.beta_of: beta: warm_up, the default, is of an example; give",),
        "mode: batch, beta_of: batch",
    ),
    Bad("beta_of_warm_up", (":7:63: training.solver.beta_of: beta: warm_up",), "mode: batch, beta_of: batch, beta: warm_up"),
    Bad("refresh_zero", ("training.solver.refresh: received 0; allowed: greater than or equal to 1 or 'plateau'",), "refresh: 0"),
    Bad("refresh_half", ("training.solver.refresh: received 1.5; allowed: integer or 'plateau'",), "refresh: 1.5"),
    Bad("refresh_word", ("training.solver.refresh: received 'plato'", "?plateau"), "refresh: plato"),
    Bad("patience", (":7:62: training.solver.patience: is of refresh: plateau; leave it out",), "refresh: 2, patience: 3"),
    Bad("hold_at_most", ("training.solver.hold_at_most: is of refresh: plateau",), "refresh: 2, hold_at_most: 9"),
    Bad("patience_zero", ("training.solver.patience: received 0",), "patience: 0"),
    Bad("decrease", ("training.solver.min_decrease: received 1; allowed: less than 1",), "min_decrease: 1"),
    Bad("memory", ("training.solver.memory_gb: received -1; allowed: greater than or equal to 0",), "memory_gb: -1"),
    of_stored("refresh", "2"),
    of_stored("patience", "3"),
    of_stored("store", "disk"),
    of_stored("memory_gb", "1"),
    of_shared("vote", "majority"),
    of_shared("beta_of", "batch"),
    Bad("energy", ("training.solver: with rule: energy every unit has q^2 > 0; allowed: a number above 0",), "rule: energy"),
    Bad("idle_memory", ("training.solver.memory_gb: store is 'disk'; leave it out",), "store: disk, memory_gb: 1"),
    Bad("idle_disk", ("training.solver.disk_gb: store is 'memory'; leave it out",), "store: memory, disk_gb: 1"),
    Bad(
        "warm_up_negative",
        (":7:31: training.solver.warm_up_epochs: received -1; allowed",),
        None,
        "{name: alternation, warm_up_epochs: -1}",
    ),
    Bad(
        "warm_up_all",
        (":7:31: training.solver.warm_up_epochs: received 3; of 3 epochs none would be left",),
        None,
        "{name: alternation, warm_up_epochs: 3}",
    ),
    Bad(
        "warm_up_default",
        (":7:3: training.solver: warm_up_epochs is 5 where it is left out; of 3 epochs none",),
        None,
        "alternation",
    ),
    Bad(
        "warm_up_tuning",
        (":8:43: prune.fine_tune.solver: warm_up_epochs is 5", "of 1 epochs"),
        more="prune: {keep: 0.5, fine_tune: {epochs: 1, solver: alternation}}\n",
    ),
    Bad(
        "warm_up_sparse",
        (":8:44: dsd.sparse.solver.warm_up_epochs: received 9; of 3 epochs",),
        strategy="dsd",
        more="dsd: {sparse: {solver: {name: alternation, warm_up_epochs: 9}}}\n",
    ),
    Bad(
        "no_activation",
        (":7:12: training.solver.name: nothing that trains has an activation with a support; allowed: relu, positive_hard",),
        "rule: energy, beta: 1",
        defaults=ELU,
    ),
    Bad("linear_heads", (":7:12: training.solver.name: nothing that trains has an activation",), "", strategy="random_features"),
    Bad(
        "new_views",
        (
            ":7:50: training.solver.mode: received 'instance' with augmentation drawn anew in every epoch",
            "Set data.augment_views",
        ),
        "mode: instance",
        data=FLIP,
    ),
    # 50 images with 8 x 8 x 2 units: 16 bytes each, 800 in all.
    Bad(
        "no_room",
        (":7:3: training.solver.store: masks of 0.0 MB do not fit into memory_gb 0 nor disk_gb 7e-07",),
        "memory_gb: 0, disk_gb: 7.0e-7",
    ),
    Bad(
        "no_memory",
        (":7:65: training.solver.memory_gb: masks of 0.0 MB do not fit into memory_gb 7e-07; more",),
        "store: memory, memory_gb: 7.0e-7",
    ),
    Bad("no_disk", ("training.solver.disk_gb: masks of 0.0 MB do not fit into disk_gb 0",), "store: disk, disk_gb: 0"),
    Bad(
        "sparsity",
        (":8:7: dsd.sparsity: solver 'alternation' of the sparse phase prunes what its masks leave unused",),
        strategy="dsd",
        more=f"dsd: {{sparsity: 0.2, sparse: {{solver: {OFF}}}}}\n",
    ),
    Bad(
        "schedule",
        (":8:7: dsd.schedule: solver 'alternation' of the sparse phase",),
        strategy="dsd",
        more=f"dsd: {{schedule: {{name: constant_sparsity, target_sparsity: 0.5, begin_step: 0}}, sparse: {{solver: {OFF}}}}}\n",
    ),
    Bad(
        "sparse_key",
        (":8:63: dsd.sparse.solver.moed: unknown key", "?mode"),
        strategy="dsd",
        more="dsd: {sparse: {solver: {name: alternation, warm_up_epochs: 0, moed: batch}}}\n",
    ),
    Bad(
        "new_head",
        ("replace_head.training.solver.name: nothing that trains",),
        more=f"replace_head: {{head: {{hidden_layers: 0}}, training: {{solver: {OFF}}}}}\n",
    ),
]


def write(case: Bad) -> None:
    Path("s.yaml").write_text(f"name: s\nblock_defaults: {case.defaults}\nblocks: [{{conv: 2}}]\nauxiliary_head: {{}}\n")
    Path("x.yaml").write_text(case.recipe)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_plan_refuses_what_cannot_be_done(case, call):
    write(case)
    assert_clear(*call("plan s.yaml -r x.yaml"), case.expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.id in ("new_views", "no_room", "no_activation")], ids=str)
def test_training_refuses_it_too_and_leaves_no_folder(case, call):
    write(case)
    assert_clear(*call("train s.yaml -q -r x.yaml -w run"), case.expected)
    assert not Path("run").exists()


def test_masks_that_do_not_fit_into_free_memory(call, monkeypatch):
    """The plan goes by the settings; the machine may have less."""
    monkeypatch.setattr(held_masks, "available_memory", lambda: 799.0)
    write(Bad("", (), "store: memory"))
    assert_clear(*call("train s.yaml -q -r x.yaml -w run"), ("masks of 0.0 MB do not fit into free memory", "solver.store=disk"))


def test_a_full_disk_is_named(call, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    write(Bad("", (), "store: disk"))
    assert_clear(*call("train s.yaml -q -r x.yaml -w run"), ("the disk is full",))


GOOD = [
    Bad("default", (), ""),
    Bad("disk", (), "refresh: 3, store: disk, hold_pools: true, rule: energy, beta: 0.5"),
    Bad("plateau", (), "patience: 1, min_decrease: 0, hold_at_most: 7, under_mask: activation"),
    Bad("batch", (), "mode: batch"),
    Bad("warm_up", (), "mode: batch, beta: warm_up"),
    Bad("eq41", (), "mode: batch, beta: 1.5, beta_of: batch"),
    Bad("majority", (), "mode: batch, vote: majority, beta: 0.1"),
    Bad("views", (), "", data=FLIP + ", augment_views: 2"),
    Bad("tuned", (), more="prune: {keep: 0.5, fine_tune: {solver: {name: alternation, warm_up_epochs: 1, mode: batch}}}\n"),
    Bad("sparse", (), strategy="dsd", more="dsd: {sparse: {epochs: 8, solver: alternation}}\n"),
]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_a_recipe_with_all_its_defaults_loads_again(case):
    """As a run folder holds it."""
    recipe = recipe_of(case.recipe)
    Path("again.yaml").write_text(dump(recipe.value))
    again = load_recipe("again.yaml")
    assert again.value == recipe.value
    spec = spec_of("name: s\nblocks: [{conv: 2}]\nauxiliary_head: {}\n")
    plans = [[phase.as_dict() for phase in prepare(spec, one).phases] for one in (recipe, again)]
    assert plans[0] == plans[1] and any(phase.get("alternation") for phase in plans[0])


def test_the_plan_tells_people_what_is_held(call):
    """8 x 8 x 2 units: 16 bytes an image."""
    for keys, told in (
        ("", "instance masks on 1 layers (128 units), from the start; held until the loss stops falling; 16 bytes an image"),
        (
            "mode: batch, beta: 0.5",
            "batch masks on 1 layers (128 units), from the start; for each batch by eq. 41, beta 0.5 an example",
        ),
        ("mode: batch, vote: majority", "for each batch by majority vote, beta 0 an example"),
    ):
        write(Bad("", (), keys))
        code, out, err = call("plan s.yaml -r x.yaml")
        assert code == 0 and told in " ".join((out + err).split()), out + err
