"""A page about finished runs, from their files: for a browser, and to be sent to somebody."""

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import read_bytes
from kerasgreedy.reports.answers_table import class_rows
from kerasgreedy.reports.charts import Line, line_chart
from kerasgreedy.reports.costs import bytes_text, cost_rows, count, speed_notes
from kerasgreedy.reports.countdown import duration
from kerasgreedy.reports.page import card, cards, escape, folded, matrix, page, preformatted, table
from kerasgreedy.reports.run_files import DETAILS, RunRecord
from kerasgreedy.reports.tables import compare_rows, run_names, scores_rows
from kerasgreedy.strict_json import MAX_JSON_BYTES, parse_json, read_json

# Of more classes than these the table of all pairs does not fit on a page.
MOST_IN_MATRIX = 30
_Metrics = list[dict[str, Any]]


def runs_page(runs: Sequence[RunRecord]) -> str:
    """One page for one run or several; several are put side by side first.

    Raises:
        WorkdirError: a file of a run is damaged.
    """
    names = run_names(runs)
    if len(runs) == 1:
        return page(f"{names[0]}: {runs[0].results['spec']}", [f"<h1>{escape(names[0])}</h1>", *_of_run(runs[0])])
    header, rows = compare_rows(runs)
    body = [f"<h1>{escape(', '.join(names))}</h1>", table(header, rows, words=range(1, len(header)))]
    lines = [
        Line(name, _by_depth(run), index, index, marks=True) for index, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    body.append(_charts([line_chart("accuracy by depth, test data", "depth (blocks)", "top-1, %", lines, whole=True)]))
    for name, run in zip(names, runs, strict=True):
        body += [f"<h2>{escape(name)}</h2>", *_of_run(run, part=True)]
    return page(", ".join(names), body)


def _of_run(run: RunRecord, part: bool = False) -> list[str]:
    """The sections about one run.

    Args:
        part: of a page about several, so that titles are one step smaller.
    """
    results = run.results
    details = _details(run.path)
    best = max([*results["depths"], results["ensemble"]], key=lambda entry: float(entry["top1"]))
    where = f"depth {best['depth']}" if "depth" in best else "the ensemble"
    last = results["depths"][-1]
    beside = f", {100 * best['top1']:.2f} % at {where}" if best is not last else ""
    by = [results[key] for key in ("spec", "recipe", "strategy", "dataset")]
    words = "{} by {}, strategy {}, on {}".format(*map(escape, by))
    costs = f"{count(results['parameters'])} parameters, {count(results['multiply_adds'])} multiply-adds an image"
    body = [
        f"<p><b>{100 * last['top1']:.2f} %</b> of {results['examples']:,} test images are right at the last depth{beside}. "
        f"<span class='faint'>{words}, seed {results['seed']}; {costs}; "
        f"trained in {duration(results['training_seconds'])}.</span></p>"
    ]
    header, rows = scores_rows(results)
    sections = [
        ("Accuracy by depth", _accuracy(results) + table(header, rows)),
        ("Training", _training(run.metrics) + _phases(run)),
        ("What was removed", _pruning(results)),
        ("Classes", _classes(details)),
        ("The surest mistakes", _pictures(details, "mistakes")),
        ("The first test images", _pictures(details, "samples")),
        ("How it was made", _made(run)),
    ]
    size = "h3" if part else "h2"
    return body + [f"<{size}>{title}</{size}>{content}" for title, content in sections if content]


def _accuracy(results: dict[str, Any]) -> str:
    """Against depth; of a single depth there is nothing to draw."""
    depths = [(entry["depth"], 100 * entry["top1"]) for entry in results["depths"]]
    if len(depths) < 2:
        return ""
    vote = 100 * results["ensemble"]["top1"]
    lines = [Line("head", depths, 0, 0, marks=True), Line("vote of all heads", [(x, vote) for x, _ in depths], 1, 1)]
    return _charts([line_chart("accuracy by depth, test data", "depth (blocks)", "top-1, %", lines, whole=True)])


def _by_depth(run: RunRecord) -> list[tuple[float, float]]:
    return [(entry["depth"], 100 * entry["top1"]) for entry in run.results["depths"]]


def _charts(figures: Sequence[str]) -> str:
    drawn = [figure for figure in figures if figure]
    return f"<div class='charts'>{''.join(drawn)}</div>" if drawn else ""


def _training(metrics: _Metrics) -> str:
    """Loss, accuracy and learning rate over all epochs, of the deepest head of each phase."""
    deepest: dict[int, str] = {}
    for record in metrics:
        if "head" in record:
            deepest[record["phase"]] = max(deepest.get(record["phase"], ""), record["head"], key=lambda name: (len(name), name))
    chosen = [record for record in metrics if record.get("head") == deepest.get(record["phase"])]
    ends: dict[int, int] = {}
    for record in chosen:
        ends[record["phase"]] = max(ends.get(record["phase"], 0), record["epoch"])
    starts = {phase: sum(last for other, last in ends.items() if other < phase) for phase in ends}
    splits = [("training", "train"), ("validation", "validation")]

    def line(name: str, split: str, key: str, scale: float, number: int) -> Line:
        points: list[tuple[float, float]] = []
        before = None
        for record in chosen:
            if record["split"] == split and key in record:
                if before not in (None, record["phase"]):
                    points.append((points[-1][0], float("nan")))  # phases are not joined
                points.append((starts[record["phase"]] + record["epoch"], scale * record[key]))
                before = record["phase"]
        return Line(name, points, number, number)

    breaks = [starts[phase] for phase in sorted(starts)[1:]]
    draw = [("loss", "loss", 1.0), ("accuracy", "accuracy, %", 100.0)]
    figures = [
        line_chart(
            f"{key}, of the deepest head of each phase", "epoch", axis,
            [line(name, split, key, scale, number) for number, (name, split) in enumerate(splits)], breaks,
        )
        for key, axis, scale in draw
    ]  # fmt: skip
    figures.append(line_chart("learning rate", "epoch", "rate", [line("rate", "train", "learning_rate", 1.0, 2)], breaks))
    return _charts(figures)


def _phases(run: RunRecord) -> str:
    """What each stage trained, for how long, in how much memory, and what it kept."""
    plan = _plan(run.path)
    rows = []
    for index, entry in enumerate(run.results["phases"]):
        stage = plan[index] if index < len(plan) else {}
        if "phase" not in entry:
            rows.append([str(stage.get("name", entry.get("action", ""))), "", "", "", "", "", "", ""])
            continue
        spent, memory = _spent(run.metrics, index)
        kept = str(entry["best"]["epoch"]) if entry["keep"] == "best" and entry["best"] else "last"
        looked = entry.get("validation") or {}
        score = looked.get("top1", looked.get("after", {}).get("top1"))  # of an action: what it left
        rows.append(
            [
                entry["phase"],
                f"{stage['parameters']:,}" if "parameters" in stage else "",
                count(stage["training_multiply_adds"]) if "training_multiply_adds" in stage else "",
                str(entry["epochs"]),
                kept,
                "" if score is None else f"{100 * score:.2f}",
                duration(spent) if spent is not None else "",
                bytes_text(memory) if memory else "",
            ]
        )
    header = [
        "phase",
        "trains weights",
        "multiply-adds of a step",
        "epochs",
        "kept",
        "validation, %",
        "time",
        "memory, at most",
    ]
    return table(header, rows)


def _spent(metrics: _Metrics, phase: int) -> tuple[float | None, int]:
    """Seconds of training in a phase, and the most memory that the process had until its end; of older runs not known."""
    own = [record for record in metrics if record["phase"] == phase and "elapsed_seconds" in record]
    before = [record["elapsed_seconds"] for record in metrics if record["phase"] < phase and "elapsed_seconds" in record]
    if not own:
        return None, 0
    return own[-1]["elapsed_seconds"] - max(before, default=0.0), max(record.get("peak_memory_bytes", 0) for record in own)


def _pruning(results: dict[str, Any]) -> str:
    if "pruned" not in results:
        return ""
    pruned = results["pruned"]
    notes = "".join(f"<p>The network is {escape(note)}.</p>" for note in speed_notes(pruned["after"]))
    return table(["", "before", "after", "before / after"], cost_rows(pruned["before"], pruned["after"])) + notes


def _classes(details: dict[str, Any] | None) -> str:
    if details is None:
        return ""
    header, *rows = class_rows(details)
    words = [5] if len(header) > 5 else []
    shown = table(
        header, rows[:MOST_IN_MATRIX], f"depth {details['depth']}, {details['examples']:,} {details['part']} images", words
    )
    if len(rows) > MOST_IN_MATRIX:
        worst = sorted(rows, key=lambda row: float(row[3] or 101))[:MOST_IN_MATRIX]
        shown = table(header, worst, f"the {MOST_IN_MATRIX} of {len(rows):,} classes with the fewest right", words)
    if "confusion" in details and len(rows) <= MOST_IN_MATRIX:
        return shown + matrix([entry["name"] for entry in details["classes"]], details["confusion"])
    pairs = [[f"{pair['label']} taken for {pair['answer']}", pair["images"]] for pair in details["confused"]]
    return shown + (table(["most often", "images"], pairs) if pairs else "")


def _pictures(details: dict[str, Any] | None, key: str) -> str:
    if details is None or not details[key]:
        return ""
    parts = []
    for entry in details[key]:
        right = entry["label"] == entry["answer"]
        lines = [("right" if right else "wrong", f"{entry['answer']} {100 * entry['probability']:.0f} %")]
        lines += [] if right else [("faint", f"is {entry['label']}")]
        parts.append(card(base64.b64decode(entry["picture"]), lines, f"image {entry['place']}: {entry['label']}"))
    return cards(parts)


def _made(run: RunRecord) -> str:
    """What was run, and how to run it again."""
    facts = read_json(run.path / "run.json")
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    data = facts["data"]
    images = {part: data.get(f"{part}_images", 0) for part in ("train", "validation", "test")}
    lines = [
        f"<p>{images['train']:,} training, {images['validation']:,} validation and {images['test']:,} test images. "
        f"Begun {escape(facts.get('started', 'at a time that is not known'))}. {escape(versions)}.</p>"
    ]
    command = facts.get("command")
    if isinstance(command, list) and command:
        typed = shlex.join([Path(str(command[0])).name, *map(str, command[1:])])
        lines.append(f"<p>The command was</p>{preformatted(typed)}")
    if not facts.get("arrays"):  # arrays of a program are known to that program only
        recipe = "changed_recipe.yaml" if (run.path / "changed_recipe.yaml").is_file() else "recipe.yaml"
        spec, how = (shlex.quote(str(run.path / name)) for name in ("spec.yaml", recipe))
        again = f"kerasgreedy train {spec} --recipe {how}"
        lines.append(f"<p>To train it again, from the documents that were really used:</p>{preformatted(again)}")
    changes = [
        f"{' '.join(change['set'])} (phase {change['phase'] + 1}, epoch {change['epoch']})" for change in facts.get("changes", [])
    ]
    if changes:
        lines.append(f"<p>It went on with other settings:</p>{preformatted(chr(10).join(changes))}")
    for name in ("spec.yaml", "recipe.yaml", "changed_recipe.yaml", "pruned_spec.yaml"):
        if (run.path / name).is_file():
            lines.append(folded(name, preformatted((run.path / name).read_text(encoding="utf-8"))))
    return "".join(lines)


def _plan(path: Path) -> list[dict[str, Any]]:
    if not (path / "plan.json").is_file():
        return []
    try:
        plan = parse_json(read_bytes(path / "plan.json", MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path / 'plan.json'}: damaged ({error})") from None
    return [stage for stage in plan if isinstance(stage, dict)] if isinstance(plan, list) else []


def _details(path: Path) -> dict[str, Any] | None:
    """What the run answered on test data; None where it was not asked."""
    file = path / "evaluation" / "test" / DETAILS
    if not file.is_file():
        return None
    details = read_json(file)
    wanted = {"depth", "part", "examples", "classes", "confused", "mistakes", "samples"}
    if wanted - details.keys():
        raise WorkdirError(f"{file}: damaged ({min(wanted - details.keys())} is missing)")
    return details
