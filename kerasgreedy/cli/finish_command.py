"""`kerasgreedy finish`: quantise or cluster a trained network."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import DataAt, Json, Quiet, quiet_tensorflow


def finish(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the result.")],
    method: Annotated[str, typer.Option("--method", "-m", metavar="quantize|cluster", help="What to do.")],
    epochs: Annotated[int, typer.Option("--epochs", help="Of fine-tuning.")] = 3,
    clusters: Annotated[int | None, typer.Option("--clusters", help="cluster: distinct values of a kernel. Default: 16.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Constant. Default: a tenth of the recipe's.")
    ] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Of the head that is kept. Default: the last trained one.")] = None,
    data_at: DataAt = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantise or cluster a trained network with TensorFlow Model Optimization."""
    quiet_tensorflow()
    from kerasgreedy.export.tfmot.finish_run import Finish, finish_run

    settings = Finish(method, epochs, clusters, learning_rate, depth)  # type: ignore[arg-type]
    results = finish_run(workdir, out, settings, quiet=quiet, data_at=data_at)
    if as_json:
        output.put_json({"out": str(out), **results})
    else:
        _put(results)
        output.put(f"written to: {out}")


def _put(results: dict[str, Any]) -> None:
    rows = [
        [what, *(f"{100 * results[what][key]:.2f}" for key in ("top1", "top5")), f"{results[what]['loss']:.4f}", f"{size:,}"]
        for what, size in zip(("before", "after"), _sizes(results), strict=True)
    ]
    kind = "bytes (weights, then file)" if results["method"] == "quantize" else "bytes of weights after gzip"
    title = f"{results['spec']}, depth {results['depth']}, {results['method']}: {results['examples']:,} test images"
    output.put_table(["", "top-1 %", "top-5 %", "loss", kind], rows, title)
    if results["method"] == "cluster":
        output.put(f"at most {max(results['distinct_values'].values())} distinct values in a kernel")


def _sizes(results: dict[str, Any]) -> tuple[int, int]:
    keys = ("float_weights_bytes", "file_bytes") if results["method"] == "quantize" else ("gzip_bytes_before", "gzip_bytes_after")
    return results[keys[0]], results[keys[1]]
