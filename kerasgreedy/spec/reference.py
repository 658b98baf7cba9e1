"""Writes the reference pages of specs and recipes from the schema, so that they cannot drift.

`python -m kerasgreedy.spec.reference FOLDER` writes `spec.md`, `recipe.md` and `analyses.md` there.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kerasgreedy.spec import augmentation as X
from kerasgreedy.spec import block_defaults as B
from kerasgreedy.spec import dsd as D
from kerasgreedy.spec import layers as L
from kerasgreedy.spec import model as M
from kerasgreedy.spec import objective_settings as O
from kerasgreedy.spec import pruning_settings as P
from kerasgreedy.spec import recipe as R
from kerasgreedy.spec import regularizers as G
from kerasgreedy.spec import solver_settings as V
from kerasgreedy.spec import sparsity as S
from kerasgreedy.spec import threshold_settings as H
from kerasgreedy.spec import training as T
from kerasgreedy.spec.analysis_door import ANALYSES
from kerasgreedy.spec.reference_text import ANALYSES_INTRO, RECIPE_INTRO, SPEC_INTRO

SPEC_SECTIONS: dict[type[BaseModel], str] = {
    M.ModelSpec: "Top level",
    M.Nominal: "`nominal`",
    B.BlockDefaults: "`block_defaults`",
    B.Threshold: "`block_defaults.threshold`, `threshold`",
    M.Block: "A block with options",
    M.Head: "`auxiliary_head`, `final_head`, `head`",
}
RECIPE_SECTIONS: dict[type[BaseModel], str] = {
    R.Recipe: "Top level",
    R.Data: "`data`",
    X.Augment: "`data.augment`",
    X.RandAugment: "`data.augment.rand_augment`",
    T.Training: "`training`",
    T.Sgd: "`training.optimizer`: sgd",
    T.Adam: "`training.optimizer`: adam",
    T.AdamW: "`training.optimizer`: adamw",
    T.RmsProp: "`training.optimizer`: rmsprop",
    T.ConstantSchedule: "`training.schedule`: constant",
    T.StepSchedule: "`training.schedule`: step",
    T.CosineSchedule: "`training.schedule`: cosine",
    V.Averaged: "`training.solver`: averaged",
    V.Alternation: "`training.solver`: alternation",
    V.Fista: "`training.solver`: fista",
    **{cls: f"`training.objective`: {name}" for name, cls in zip(O.OBJECTIVES.names, O.OBJECTIVES.classes, strict=True)},
    **{cls: f"`training.regularizers`: {name}" for name, cls in zip(G.PENALTIES.names, G.PENALTIES.classes, strict=True)},
    R.Cache: "`cache`",
    R.Voting: "`ensemble`",
    R.Convex: "`convex`",
    P.Prune: "`prune`",
    P.FineTune: "`prune.fine_tune`, `threshold.fine_tune`",
    H.KernelThreshold: "`threshold`",
    P.ReplaceHead: "`replace_head`",
    D.Dsd: "`dsd`",
    T.TrainingChanges: "`dsd.sparse`, `dsd.dense`, `replace_head.training`",
    T.PhaseChanges: "`phases`: each",
    S.ConstantSparsity: "`dsd.schedule`, `prune.schedule`: constant_sparsity",
    S.PolynomialDecay: "`dsd.schedule`, `prune.schedule`: polynomial_decay",
}
SHARED_OPTIONS = "`--out`, `--devices`, `--overwrite`, `--quiet`, `-q`, `--json`"


def reference(intro: str, sections: Mapping[type[BaseModel], str]) -> str:
    """One page: the introduction, and for each class its title and a table."""
    parts = [intro]
    for cls, title in sections.items():
        whole = cls.model_json_schema()
        schema = whole["$defs"][cls.__name__] if "$ref" in whole else whole  # a recursive class stands among its own $defs
        rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for name, field in cls.model_fields.items():
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            shape = _shape(schema["properties"][name])
            rows.append(f"| `{name}` | {shape} | {default} | {field.description} |")
        doc = " ".join((cls.__doc__ or "").split())
        parts.append(f"## {title}\n\n{doc}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """File name -> page."""
    layers: dict[type[BaseModel], str] = {cls: f"Layer `{kind}`" for kind, cls in L.KINDS.all.items()}
    return {
        "analyses.md": _analyses(),
        "spec.md": reference(SPEC_INTRO, {**SPEC_SECTIONS, **layers}),
        "recipe.md": reference(RECIPE_INTRO, RECIPE_SECTIONS),
    }


def _analyses() -> str:
    """A section for each command that an analysis is."""
    parts = [ANALYSES_INTRO]
    for cls in ANALYSES.classes:
        name = str(cls.model_fields["name"].default)
        schema = cls.model_json_schema()
        rows = ["| option | value | default | meaning |", "| --- | --- | --- | --- |"]
        argument = ""
        for key, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and "argument" in extra:
                argument = f" [{extra['argument']}]"
            elif key != "name":
                default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
                option = f"--{key.rstrip('_').replace('_', '-')}"
                rows.append(f"| `{option}` | {_shape(schema['properties'][key])} | {default} | {field.description} |")
        rows.append(f"| {SHARED_OPTIONS} | | | as of the others, see above |")
        doc = " ".join((cls.__doc__ or "").split())
        many = "WORKDIR" if argument else "WORKDIR..."
        parts.append(f"## `kerasgreedy {name} {many}{argument}`\n\n{doc}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "-"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _shape(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "a layer" if name in {cls.__name__ for cls in L.KINDS.all.values()} else "a mapping"
    if "const" in schema:
        return f"`{str(schema['const']).lower()}`" if isinstance(schema["const"], bool) else f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        choices = [_shape(part) for part in schema.get("anyOf") or schema["oneOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(choices))
    kind = schema.get("type")
    if kind == "array":
        inside = _shape(schema.get("items", {}))
        count = f"{schema['minItems']} of " if schema.get("minItems") == schema.get("maxItems") and "minItems" in schema else ""
        return f"list of {count}{inside}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    limits = {"minimum": ">= {}", "exclusiveMinimum": "> {}", "maximum": "<= {}", "exclusiveMaximum": "< {}"}
    bounds = ", ".join(text.format(schema[key]) for key, text in limits.items() if key in schema)
    return f"{words.get(str(kind), 'a mapping')}{' ' + bounds if bounds else ''}"


if __name__ == "__main__":
    for file_name, page in pages().items():
        (Path(sys.argv[1]) / file_name).write_text(page)
