"""Settings of other programs, which nobody meant for this one."""

import json
import subprocess
from pathlib import Path

from .nursery import Around
from .outside_surroundings import COMPARE, EXPORT
from .situations import TRAIN, Situation, not_there, there

GROUP = "g: settings of other programs"
KERAS = {
    "channels_first": ('{"image_data_format": "channels_first"}', "image_data_format"),
    "float16": ('{"floatx": "float16"}', "floatx"),
    "bfloat16": ('{"floatx": "bfloat16"}', "floatx"),
    "float64": ('{"floatx": "float64"}', "floatx"),
    "jax": ('{"backend": "jax"}', "backend"),
    "torch": ('{"backend": "torch"}', "backend"),
    "no such backend": ('{"backend": 7}', "backend"),
    "another epsilon": ('{"epsilon": 0.1}', ""),
    "damaged": ("{", ""),
    "a list": ("[]", "does not load"),
    "an epsilon of 1": ('{"epsilon": 1}', "does not load"),
    "depth": ("[" * 100_000, "cannot read"),
}
BACKENDS = ("jax", "torch", "numpy", "nonsense", "TENSORFLOW")
COMMANDS = {"train": (TRAIN, ()), "evaluate": (("evaluate", "run"), ("run",)), "export": (EXPORT, ("run",))}
RCS = {
    "no such setting": "what: is this",
    "no such value": "savefig.dpi: many",
    "a backend of the folder": "backend: module://evil",
    "not UTF-8": "font.family: \udcff",
    "mathematics": "text.usetex: True",
}
EVIL = "open('ran', 'a').write(__name__)\n"
MODULES = ("evil", "sitecustomize", "usercustomize", "typer", "yaml", "json", "numpy", "keras", "matplotlib")
GIT = {
    "core.fsmonitor": "touch ran",
    "core.sshCommand": "touch ran",
    "core.pager": "touch ran",
    "core.hooksPath": "hooks",
    "diff.external": "touch ran",
    "filter.x.clean": "touch ran",
    "filter.x.process": "touch ran",
    "core.attributesFile": "attributes",
    "include.path": "../more",
    "alias.rev-parse": "!touch ran",
    "alias.status": "!touch ran",
    "remote.origin.url": "ext::sh -c 'touch ran'",
    "core.worktree": "/",
    "extensions.partialClone": "origin",
}


def _cluster(workers: object = ("127.0.0.1:29571", "127.0.0.1:29572"), index: object = 0, kind: object = "worker") -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": kind, "index": index}})


CLUSTERS = {
    "a bad host": _cluster(("no such host:1", "127.0.0.1:29572")),
    "an unknown host": _cluster(("no-such-host.invalid:29571", "127.0.0.1:29572")),
    "port 0": _cluster(("127.0.0.1:0", "127.0.0.1:29572")),
    "port 99999": _cluster(("127.0.0.1:99999", "127.0.0.1:29572")),
    "no port": _cluster(("127.0.0.1", "127.0.0.1:29572")),
    "one address twice": _cluster(("127.0.0.1:29571", "127.0.0.1:29571")),
    "index true": _cluster(index=True),
    "index 1.0": _cluster(index=1.0),
    "index 9": _cluster(index=9),
    "index of 400 digits": _cluster(index=10**400),
    "type 7": _cluster(kind=7),
    "workers are a text": _cluster("127.0.0.1:29571"),
    "depth": "[" * 100_000,
    "no JSON": "{",
    "nothing": "",
}


def _keras(text: str) -> object:
    return lambda place: [(place / "home").mkdir(), (place / "home/keras.json").write_text(text)]


def _hostile_folder(rc: str) -> object:
    def before(place: Path) -> None:
        (place / "matplotlibrc").write_text(rc, errors="surrogateescape")
        for name in MODULES:
            (place / f"{name}.py").write_text(EVIL)
        (place / "evil.pth").write_text("import os; open('ran', 'a').write('pth')")

    return before


def _hostile_git(key: str, value: str) -> object:
    def before(place: Path) -> None:
        git = ["git", "-c", "user.name=a", "-c", "user.email=b", "-C", str(place)]
        (place / ".gitattributes").write_text("* filter=x diff=x\n")
        (place / "attributes").write_text("* filter=x\n")
        (place / "more").write_text("[core]\n\tfsmonitor = touch ran\n")
        (place / "hooks").mkdir()
        hook = place / "hooks/post-index-change"
        hook.write_text("#!/bin/sh\ntouch ran\n")
        hook.chmod(0o755)
        for command in (["init", "-q"], ["add", "spec.yaml"], ["commit", "-q", "-m", "x"], ["config", key, value]):
            subprocess.run([*git, *command], check=True, capture_output=True)
        (place / "spec.yaml").touch()
        (place / "ran").unlink(missing_ok=True)

    return before


def settings() -> list[Situation]:
    """Keras's, TensorFlow's, matplotlib's and git's."""
    found = []
    for what, (text, says) in KERAS.items():
        for name, (command, needs) in list(COMMANDS.items())[: 3 if says else 1]:
            around = Around(fresh=True, variables={"KERAS_HOME": "home", "KERAS_BACKEND": ""})
            found.append(
                Situation(GROUP, f"keras.json: {what}, {name}", command, says, False, needs, _keras(text), around=around)
            )
    for backend in BACKENDS:
        around = Around(fresh=True, variables={"KERAS_BACKEND": backend})
        found.append(Situation(GROUP, f"KERAS_BACKEND={backend}", TRAIN, "backend", around=around))
    for what, text in CLUSTERS.items():
        around = Around(variables={"TF_CONFIG": text})
        found.append(Situation(GROUP, f"TF_CONFIG: {what}", [*TRAIN, "--distribute", "multi_worker"], "TF_CONFIG", around=around))
    for what, rc in RCS.items():
        around = Around(fresh=True)
        found.append(
            Situation(
                GROUP, f"matplotlibrc: {what}", COMPARE, needs=("run",), before=_hostile_folder(rc), around=around,
                check=lambda place, ended: not_there("ran")(place, ended) or there("new.png")(place, ended),
            )
        )  # fmt: skip
    for key, value in GIT.items():
        found.append(
            Situation(
                GROUP, f"git: {key}", [*TRAIN, "-s", "blocks=[{conv: 2}]"], before=_hostile_git(key, value),
                check=lambda place, ended: not_there("ran", "hooks/ran")(place, ended) or there("new/results.json")(place, ended),
            )
        )  # fmt: skip
    return found
