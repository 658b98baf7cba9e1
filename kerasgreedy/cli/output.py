"""Printing: tables and progress for people, one JSON object at the end of standard output for programs."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from kerasgreedy.errors import printable
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.tree import show
from kerasgreedy.plan.preparation import Job
from kerasgreedy.reports.costs import cost_rows, count, speed_notes
from kerasgreedy.reports.countdown import duration
from kerasgreedy.reports.tables import Rows, scores_rows, terminal_table
from kerasgreedy.strict_json import as_json


def put_json(value: Any) -> None:
    """One JSON object on one line of standard output."""
    print(as_json(value))


def put_table(header: Sequence[str], rows: Rows, title: str | None = None) -> None:
    """A table on standard output: no word of it is broken for a narrow terminal, and nothing cut for one that is not there."""
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # a name such as [/b] is only a name
    console = Console(**plain)
    width = console.width if console.is_terminal else None
    if width is None:
        console = Console(**plain, width=200)
    cells = [list(map(printable, row)) for row in rows]
    console.print(terminal_table(list(map(printable, header)), cells, title and printable(title), width))


def put(text: str) -> None:
    """A line on standard output."""
    print(printable(text))


def architecture_json(arch: Architecture) -> dict[str, Any]:
    """`summary --json`."""
    return {
        "name": arch.name,
        "input_shape": list(arch.input_shape),
        "classes": arch.classes,
        "parameters": arch.parameters,
        "multiply_adds": arch.multiply_adds,
        "blocks": [
            {
                "name": block.name,
                "output_shape": list(block.output_shape),
                "parameters": block.parameters,
                "multiply_adds": block.multiply_adds,
            }
            for block in arch.blocks
        ],
        "heads": [{"name": head.name, "parameters": head.parameters, "multiply_adds": head.multiply_adds} for head in arch.heads],
    }


def put_architecture(arch: Architecture) -> None:
    """`summary` for people."""
    rows = []
    for block, head in zip(arch.blocks, arch.heads, strict=True):
        k = "own layers" if head.hidden_layers is None else f"k = {head.hidden_layers + 1}"
        rows.append(
            [block.name, show(block.output_shape), f"{block.parameters:,}", count(block.multiply_adds), k,
             f"{head.parameters:,}", count(head.multiply_adds)]
        )  # fmt: skip
    title = f"{arch.name}, input {show(arch.input_shape)}, {arch.classes} classes"
    header = ["block", "output", "parameters", "multiply-adds", "head", "its parameters", "its multiply-adds"]
    put_table(header, rows, title)
    put(
        f"blocks and final head: {arch.parameters:,} parameters ({arch.parameters / 1e6:.1f}M), "
        f"{arch.multiply_adds:,} multiply-adds an image"
    )


def plan_json(job: Job) -> dict[str, Any]:
    """`plan --json`."""
    return {
        "spec": job.spec.name,
        "recipe": job.recipe.name,
        "strategy": job.recipe.strategy,
        "input_shape": list(job.architecture.input_shape),
        "classes": job.architecture.classes,
        "train_images": job.train_images,
        "validation_images": job.validation_images,
        "test_images": job.test_images,
        "phases": [phase.as_dict() for phase in job.phases],
    }


def put_scores(results: dict[str, Any], title: str) -> None:
    """Accuracy by depth and of the ensemble."""
    put_table(*scores_rows(results), title)


def put_costs(results: dict[str, Any]) -> None:
    """Costs before and after, of a run that changed its network; says where it is not faster."""
    pruned = results["pruned"]
    put_table(["", "before", "after", "before / after"], cost_rows(pruned["before"], pruned["after"]))
    for note in speed_notes(pruned["after"]):
        put(f"the smaller network is {note}")


def put_timings(timings: Sequence[Any]) -> None:
    """How long phases take, of `analysis.run_time`."""
    rows = [
        [each.name, f"{1000 * each.step_seconds:.0f}", f"{each.steps:,}", f"{each.start_seconds:.0f}", duration(each.seconds)]
        for each in timings
    ]
    put_table(["phase", "ms a step", "steps", "s to begin", "in all"], rows)
    whole = duration(sum(each.seconds for each in timings))
    put(f"about {whole} on this machine as it is now; images are not read, nor actions done")


def put_plan(job: Job) -> None:
    """`plan` for people."""
    shown = [[count(cell) if isinstance(cell, int) else cell for cell in stage.cells()] for stage in job.phases]
    rows = [[str(number), *cells] for number, cells in enumerate(shown, start=1)]
    title = (
        f"{job.spec.name} by {job.recipe.name}: strategy {job.recipe.strategy} on {job.data.dataset} "
        f"({job.train_images:,} training, {job.validation_images:,} validation, {job.test_images:,} test images of "
        f"{show(job.architecture.input_shape)})"
    )
    header = [
        "phase",
        "trains",
        "frozen",
        "losses at",
        "parameters",
        "forward multiply-adds",
        "step multiply-adds",
        "epochs",
        "input",
        "start",
    ]
    put_table(header, rows, title)
    total = sum(phase.total_multiply_adds(job.train_images) for phase in job.phases)
    put(f"multiply-adds are those of one image; the whole plan: {count(total)}")
    precision, frozen = job.recipe.precision, job.recipe.frozen_precision
    put(f"precision: {precision}" + (f", frozen blocks {frozen}" if frozen != precision else ""))
    for line in (line for stage in job.phases for line in stage.notes()):
        put(line)


def size_text(shape: Sequence[int | None]) -> str:
    """`32x32x3`; `any x3` where images differ in size."""
    return show(tuple(side for side in shape if side is not None)) if None not in shape else f"any, {shape[-1]} channels"


def put_overview(facts: dict[str, Any], most: int = 30) -> None:
    """`data show` for people; classes are listed one by one up to `most` of them."""
    splits = facts["splits"]
    counts = {split: list(splits[split]["per_class"].values()) for split in splits}
    title = f"{facts['dataset']}: {size_text(facts['image_shape'])}, {facts['classes']} classes"
    if facts["classes"] <= most:
        names = list(splits["train"]["per_class"])
        rows = [[name, *(f"{counts[split][index]:,}" for split in splits)] for index, name in enumerate(names)]
    else:
        rows = [
            [f"{word} class", *(f"{figure(counts[split]):,.0f}" for split in splits)]
            for word, figure in (("smallest", min), ("median", statistics.median), ("largest", max))
        ]
    rows.append(["all", *(f"{splits[split]['images']:,}" for split in splits)])
    put_table(["class", "training images", "test images"], rows, title)
    size = "x".join(map(str, facts["shown_size"]))
    channels = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in zip(facts["mean"], facts["deviation"], strict=True)]
    put(f"mean and deviation of each channel at {size}, of 0..255: {', '.join(channels)}")
    if facts["origin"]:
        put(f"read from: {facts['origin']}")
