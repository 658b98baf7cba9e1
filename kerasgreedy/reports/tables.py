"""Tables: for the terminal (rich) and for files (Markdown)."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from kerasgreedy.reports.records import RunRecord

Rows = list[list[str]]


def percent(value: float) -> str:
    """0.9134 as `91.34`."""
    return f"{100 * value:.2f}"


def count(value: float) -> str:
    """138357544 as `138.4M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}" if value < 100 * size else f"{value / size:.0f}{unit}"
    return str(int(value))


def scores_rows(results: dict[str, Any]) -> tuple[list[str], Rows]:
    """Accuracy by depth and of the ensemble."""
    rows = [[str(d["depth"]), percent(d["top1"]), percent(d["top5"]), f"{d['loss']:.4f}"] for d in results["depths"]]
    vote = results["ensemble"]
    rows.append([f"ensemble of {vote.get('on', 'logits')}", percent(vote["top1"]), percent(vote["top5"]), f"{vote['loss']:.4f}"])
    return ["depth", "top-1 %", "top-5 %", "loss"], rows


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """Folder names, or whole paths where two folders have the same name."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def compare_rows(runs: Sequence[RunRecord]) -> tuple[list[str], Rows]:
    """Runs side by side: facts, then accuracy at each depth."""
    header = ["", *run_names(runs)]
    facts = [
        ("spec", lambda r: r["spec"]),
        ("strategy", lambda r: r["strategy"]),
        ("data", lambda r: r["dataset"]),
        ("epochs in all", lambda r: str(r["epochs"])),
        ("parameters", lambda r: count(r["parameters"])),
        ("multiply-adds", lambda r: count(r["multiply_adds"])),
        ("training seconds", lambda r: f"{r['training_seconds']:.0f}"),
    ]
    rows = [[name, *(str(get(run.results)) for run in runs)] for name, get in facts]
    by_depth = [{d["depth"]: percent(d["top1"]) for d in run.results["depths"]} for run in runs]
    for depth in sorted({depth for table in by_depth for depth in table}):
        rows.append([f"top-1 % at depth {depth}", *(table.get(depth, "-") for table in by_depth)])
    rows.append(["top-1 % ensemble", *(percent(run.results["ensemble"]["top1"]) for run in runs)])
    return header, rows


def terminal_table(header: Sequence[str], rows: Rows, title: str | None = None) -> Table:
    """A rich table; the first column stands left, the others right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def results_markdown(results: dict[str, Any]) -> str:
    """`results.md` of a run."""
    kept = [
        [str(index), entry["phase"], str(entry["epochs"]), str(entry["best"]["epoch"]) if entry["keep"] == "best" else "last"]
        for index, entry in enumerate(results["phases"], start=1)
    ]
    return (
        f"# {results['spec']}, recipe {results['recipe']}\n\n"
        f"Strategy {results['strategy']} on {results['dataset']}, seed {results['seed']}; "
        f"{results['parameters']:,} parameters, {results['multiply_adds']:,} multiply-adds; "
        f"{results['examples']:,} test images.\n\n"
        + markdown_table(*scores_rows(results))
        + "\n"
        + markdown_table(["phase", "trained", "epochs", "epoch kept"], kept)
    )
