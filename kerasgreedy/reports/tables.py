"""Tables: for the terminal (rich) and for files (Markdown)."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kerasgreedy.reports.costs import batches_of, bytes_text, change_text, cost_rows, count, speed_notes
from kerasgreedy.reports.pruning_table import prune_rows
from kerasgreedy.reports.run_files import RunRecord

Rows = list[list[str]]


def percent(value: float) -> str:
    """0.9134 as `91.34`."""
    return f"{100 * value:.2f}"


def scores_rows(results: dict[str, Any]) -> tuple[list[str], Rows]:
    """Accuracy by depth and of the ensemble."""
    rows = [[str(d["depth"]), percent(d["top1"]), percent(d["top5"]), f"{d['loss']:.4f}"] for d in results["depths"]]
    vote = results["ensemble"]
    rows.append([f"ensemble of {vote.get('on', 'logits')}", percent(vote["top1"]), percent(vote["top5"]), f"{vote['loss']:.4f}"])
    return ["depth", "top-1 %", "top-5 %", loss_name(results["depths"])], rows


def loss_name(entries: Sequence[dict[str, Any]]) -> str:
    """What the figures under `loss` are; cross entropy where an entry names no objective."""
    named = list(dict.fromkeys(str(entry.get("objective", "cross entropy")) for entry in entries))
    return "loss" if named == ["cross entropy"] else " / ".join(name.replace("_", " ") for name in named)


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """Folder names, or whole paths where two folders have the same name."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def compare_rows(runs: Sequence[RunRecord]) -> tuple[list[str], Rows]:
    """Runs side by side: facts, then accuracy at each depth. Of a pruned run: costs before -> after."""
    header = ["", *run_names(runs)]
    facts = [
        ("spec", lambda r: r["spec"]),
        ("strategy", lambda r: r["strategy"]),
        ("data", lambda r: r["dataset"]),
        ("epochs in all", lambda r: str(r["epochs"])),
        ("parameters", lambda r: _counted(r, "parameters", count)),
        ("multiply-adds", lambda r: _counted(r, "multiply_adds", count)),
        ("weights, float32", lambda r: _counted(r, "weights_bytes", bytes_text)),
        ("training seconds", lambda r: f"{r['training_seconds']:.0f}"),
    ]
    rows = [[name, *(str(get(run.results)) for run in runs)] for name, get in facts]
    pruned = [run.results.get("pruned") for run in runs]
    measured = {batch for change in pruned if change for batch in batches_of(change["before"], change["after"])}
    for batch in sorted(measured, key=int):
        rows.append([f"ms at batch {batch}", *(change_text(change, batch) if change else "-" for change in pruned)])
    by_depth = [{d["depth"]: percent(d["top1"]) for d in run.results["depths"]} for run in runs]
    for depth in sorted({depth for table in by_depth for depth in table}):
        rows.append([f"top-1 % at depth {depth}", *(table.get(depth, "-") for table in by_depth)])
    rows.append(["top-1 % ensemble", *(percent(run.results["ensemble"]["top1"]) for run in runs)])
    return header, rows


def _counted(results: dict[str, Any], key: str, text: Callable[[Any], str]) -> str:
    if "pruned" in results:
        return f"{text(results['pruned']['before'][key])} -> {text(results['pruned']['after'][key])}"
    return text(results.get(key))


def terminal_table(header: Sequence[str], rows: Rows, title: str | None = None, width: int | None = None) -> Table | str:
    """A rich table; the first column and those of words stand left, numbers right.

    Args:
        width: of the terminal, which no word is broken for: cells are wrapped between words, and where even that does not fit
            each row becomes a few lines of text; None: as wide as it is.
    """
    style: dict[str, Any] = {}
    widths = None
    if width:
        # Frames take three places for each column, the plain style two between columns.
        widths = column_widths([header, *rows], width - 3 * len(header) - 1)
        if widths is None:
            widths = column_widths([header, *rows], width - 2 * (len(header) - 1))
            style = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
        if widths is None:
            return _stacked(header, rows, title)
    table = Table(title=title, title_justify="left", header_style="bold", **style)
    for index, name in enumerate(header):
        cells = [row[index] for row in rows if row[index]]
        # More letters than digits in most of them: words, such as "automobile (4)" too.
        wordy = [sum(map(str.isalpha, cell)) > 3 + 2 * sum(map(str.isdigit, cell)) for cell in cells]
        left = index == 0 or sum(wordy) * 2 > len(cells)
        fixed = widths[index] if widths else None
        table.add_column(name, justify="left" if left else "right", overflow="fold", width=fixed)
    for row in rows:
        table.add_row(*row)
    return table


def column_widths(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of columns that hold their words whole, in so much room; None where that cannot be.

    What is left over goes to the column that lacks most, so that few cells are wrapped.
    """
    columns = list(zip(*rows, strict=True))
    least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    wanted = [max(map(len, column), default=0) for column in columns]
    if sum(least) > room:
        return None
    widths = list(least)
    for _ in range(room - sum(least)):
        lacking = [want - width for want, width in zip(wanted, widths, strict=True)]
        if max(lacking) <= 0:
            break
        widths[lacking.index(max(lacking))] += 1
    return widths


def _stacked(header: Sequence[str], rows: Rows, title: str | None) -> str:
    """Each row as lines `name  value` under its first cell."""
    longest = max(map(len, header[1:]), default=0)
    lines = [title] if title else []
    for row in rows:
        lines.append(f"{header[0]} {row[0]}".strip())
        lines += [f"  {name:<{longest}}  {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell]
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def results_markdown(results: dict[str, Any]) -> str:
    """`results.md` of a run."""
    kept = [
        [str(index), entry["phase"], str(entry["epochs"]), str(entry["best"]["epoch"]) if entry["keep"] == "best" else "last"]
        for index, entry in enumerate(results["phases"], start=1)
        if entry["epochs"]
    ]
    return (
        f"# {results['spec']}, recipe {results['recipe']}\n\n"
        f"Strategy {results['strategy']} on {results['dataset']}, seed {results['seed']}; "
        f"{results['parameters']:,} parameters, {results['multiply_adds']:,} multiply-adds, "
        f"weights of {bytes_text(results.get('weights_bytes'))} (blocks and final head, float32); "
        f"{results['examples']:,} test images.\n\n"
        + markdown_table(*scores_rows(results))
        + "\n"
        + markdown_table(["phase", "trained", "epochs", "epoch kept"], kept)
        + _removals_markdown(results["phases"])
        + (_pruned_markdown(results["pruned"]) if "pruned" in results else "")
    )


def _removals_markdown(stages: list[dict[str, Any]]) -> str:
    header, rows = prune_rows(stages)
    return f"\n## Removal of filters\n\nAccuracy in %, on validation data.\n\n{markdown_table(header, rows)}" if rows else ""


def _pruned_markdown(pruned: dict[str, Any]) -> str:
    """Costs before and after filters were removed, and in words where that did not make the network faster."""
    table = markdown_table(["", "before", "after", "before / after"], cost_rows(pruned["before"], pruned["after"]))
    notes = "".join(f"\nThe pruned network is {note}.\n" for note in speed_notes(pruned["after"]))
    measured = "\nMilliseconds of a call: median (quartiles).\n" if batches_of(pruned["before"], pruned["after"]) else ""
    return f"\n## Before and after pruning\n\n{table}{measured}{notes}"
