"""`kerasgreedy report`: a page about runs."""

from pathlib import Path
from typing import Annotated

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, Overwrite
from kerasgreedy.errors import InputError
from kerasgreedy.files import user_path


def report(
    workdirs: Annotated[list[Path], typer.Argument(metavar="WORKDIR...", help="Folders of finished runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.html", help="The page. Default: report.html in the run folder; of several: here."
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a page about finished runs: one file, to look at or to send."""
    from kerasgreedy.reports.page_file import write_page
    from kerasgreedy.reports.run_files import read_run
    from kerasgreedy.reports.run_page import runs_page

    default = Path("report.html") if len(workdirs) > 1 else workdirs[0] / "report.html"
    target = user_path(out or default)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out: received '{target.name}'; allowed: a name that ends in .html")
    size = write_page(target, runs_page([read_run(path) for path in workdirs]), overwrite)
    if open_it:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())
    output.put_json({"page": str(target), "bytes": size}) if as_json else output.put(f"page: {target}")
