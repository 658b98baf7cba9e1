"""A command for each analysis, made from its settings: every field is an option."""

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from kerasgreedy.cli import output
from kerasgreedy.cli.options import DevicesOption, Json, Quiet, quiet_tensorflow
from kerasgreedy.errors import InputError
from kerasgreedy.spec.analysis_door import ANALYSES
from kerasgreedy.spec.analysis_settings import AnalysisSettings
from kerasgreedy.spec.strict import as_details, message_of

Workdirs = Annotated[list[Path], typer.Argument(metavar="WORKDIR...", help="Run folders.")]
Workdir = Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="For the results. Default: analyses/<name> in the first run folder.")
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace results of other settings or weights.")]


def add_analyses(app: typer.Typer) -> None:
    """Adds the commands."""
    for settings in ANALYSES.classes:
        assert issubclass(settings, AnalysisSettings)
        name = str(settings.model_fields["name"].default)
        help_ = " ".join((settings.__doc__ or "").split("\n\n")[0].split())
        app.command(name, help=help_)(_command(settings))


def _command(settings: type[AnalysisSettings]) -> Callable[..., None]:
    """A function whose signature has the settings' fields."""

    def run(
        workdirs: list[Path], out: Path | None, devices: str | None, overwrite: bool, quiet: bool, as_json: bool, **given: Any
    ) -> None:
        chosen = _validated(settings, _given(settings, given))
        quiet_tensorflow()
        from kerasgreedy.analysis.running import analyse

        finding = analyse(chosen, workdirs if isinstance(workdirs, list) else [workdirs], out, devices, overwrite, quiet=quiet)
        if as_json:
            output.put_json({**finding.figures, "files": [str(file) for file in finding.files]})
            return
        for table in finding.tables:
            output.put_table(table.header, table.rows, table.title)
        output.put("files: " + ", ".join(map(str, finding.files)))

    kind = inspect.Parameter.KEYWORD_ONLY
    shared = {
        "out": (Out, None),
        "devices": (DevicesOption, None),
        "overwrite": (Replace, False),
        "quiet": (Quiet, False),
        "as_json": (Json, False),
    }
    files = [key for key, field in settings.model_fields.items() if _argument(field)]
    parameters = [inspect.Parameter("workdirs", kind, annotation=Workdir if files else Workdirs)]
    parameters += [
        inspect.Parameter(key, kind, default=None, annotation=_option(key, field))
        for key, field in settings.model_fields.items()
        if key != "name"
    ]
    parameters += [inspect.Parameter(key, kind, default=value, annotation=note) for key, (note, value) in shared.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _argument(field: Any) -> str | None:
    """What a field that stands without an option is called in help."""
    extra = field.json_schema_extra
    return extra.get("argument") if isinstance(extra, dict) else None


def _option(key: str, field: Any) -> Any:
    """What typer makes an option of; its value None stands for the default of the settings."""
    plain = _plain(field.annotation)
    listed = typing.get_origin(plain) is list
    plain = _plain(typing.get_args(plain)[0]) if listed else plain
    words = typing.get_args(plain) if typing.get_origin(plain) is typing.Literal else ()
    kind: Any = list[str] if listed else str if words or plain not in (int, float, bool) else plain
    default = ",".join(map(str, field.default)) if listed else None if field.is_required() else field.default
    shown = "" if default in (None, "") else f" Default: {default}."
    text = f"{field.description[0].upper()}{field.description[1:]}".replace("`", "").rstrip(".") + "." + shown
    if argument := _argument(field):
        return Annotated[list[str] | None, typer.Argument(metavar=argument, help=text)]
    metavar = ("|".join(map(str, words)) or None) if not listed else f"{words[0]},{words[1]},..." if words else "A,B,..."
    name = f"--{key.replace('_', '-')}"
    names = f"{name}/--no-{name[2:]}" if kind is bool else name.rstrip("-")
    return Annotated[kind | None, typer.Option(names, metavar=metavar, help=text)]


def _given(settings: type[AnalysisSettings], values: dict[str, Any]) -> dict[str, Any]:
    """What was said, lists taken apart."""
    found = {}
    for key, value in values.items():
        if value is None:
            continue
        plain = _plain(settings.model_fields[key].annotation)
        if _argument(settings.model_fields[key]):
            value = list(value)
        elif typing.get_origin(plain) is list:
            inner = _plain(typing.get_args(plain)[0])
            parts = [part.strip() for text in value for part in text.split(",") if part.strip()]
            value = [_number(inner, part) for part in parts] if inner in (int, float) else parts
        found[key] = value
    return found


def _number(kind: Any, text: str) -> Any:
    """A number, or the text itself, which the settings refuse in words."""
    try:
        return kind(text)
    except ValueError:
        return text


def _plain(annotation: Any) -> Any:
    """int of `Annotated[int, ...] | None`."""
    if typing.get_origin(annotation) is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _plain(next(part for part in typing.get_args(annotation) if part is not type(None)))
    return annotation


def _validated(settings: type[AnalysisSettings], given: dict[str, Any]) -> AnalysisSettings:
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        lines = [
            f"--{'.'.join(map(str, d['loc'])).replace('_', '-')}: {message_of(e)}"
            for d, e in zip(as_details(error), error.errors(), strict=True)
        ]
        raise InputError("\n".join(lines)) from None
