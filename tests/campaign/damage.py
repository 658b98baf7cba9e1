"""Damaged files: each is found and said, or passed over and said, or does no harm; nothing crashes, no weight differs."""

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sklearn.datasets import load_digits

from . import workloads
from .faults import Fault
from .kills import Campaign
from .nursery import Ended, Nursery
from .workloads import GREEDY, MASKED, PRUNED, Workload

RESUME = ("train", "-q", "--resume", "run")
# Words by which a fall-back is recorded on standard error.
SAID = ("passed over a ", "goes on without these records")
# Steps of a workload after which a SIGTERM leaves the run that is damaged: in its last phase that reads a cache.
STOPPED = {GREEDY.name: 42, PRUNED.name: 36}


def cut(content: bytes) -> bytes:
    """Its first half."""
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """The highest bit of the byte in the middle, changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]


def digit(content: bytes) -> bytes:
    """The first digit of the second half, raised by one: the file still reads well."""
    place = next(i for i in range(len(content) // 2, len(content)) if chr(content[i]).isdigit())
    return content[:place] + b"%d" % ((int(chr(content[place])) + 1) % 10) + content[place + 1 :]


def array(content: bytes) -> bytes:
    """The highest bit of the byte in the middle of an npz file's largest array, changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    name_and_extra = sum(struct.unpack_from("<HH", content, largest.header_offset + 26))
    middle = largest.header_offset + 30 + name_and_extra + largest.file_size // 2
    return content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {"cut": cut, "flip": flip, "digit": digit, "array": array, "gone": None}


@dataclass
class Case:
    """Files of one kind, to be damaged one way at a time.

    Attributes:
        kind: the row of the table.
        base: which folder is copied.
        find: folder -> the file.
        damages: names of `DAMAGES`.
        command: what is run in the copy's parent.
        harmless: why nothing need be said, or empty.
        may_differ: what the damage takes with it, beside weights.
    """

    kind: str
    base: str
    find: Callable[[Path], Path]
    damages: Sequence[str]
    command: Sequence[str] = RESUME
    harmless: str = ""
    may_differ: Sequence[str] = ()


@dataclass
class Damaged:
    """One damaged file and what came of it: `error`, `fall-back`, `harmless`, `silent`, `crash`, `different`."""

    kind: str
    how: str
    came: str
    said: str = ""
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind}, {self.how}: {self.came} {', '.join(self.names)} ({self.said.strip()})"


def manifests(run: Path) -> list[Path]:
    """Oldest first."""
    return sorted((run / "checkpoints").glob("*.json"))


def objects(manifest: Path) -> dict[str, Path]:
    """Group -> file."""
    named = json.loads(json.loads(manifest.read_text())["body"])["objects"]
    return {name: manifest.parent / f"objects/{digest}.safetensors" for name, digest in named.items()}


def own_object(run: Path, number: int) -> Path:
    """An object that one checkpoint alone names."""
    every = [set(objects(manifest).values()) for manifest in manifests(run)]
    others = set().union(*(own for index, own in enumerate(every) if index != number % len(every)))
    return min(every[number] - others)


def shared_object(run: Path) -> Path:
    """The weights of a frozen block, which all checkpoints name."""
    path = objects(manifests(run)[-1])["network/block_1"]
    assert all(path in objects(manifest).values() for manifest in manifests(run))
    return path


def cases() -> list[Case]:
    """What is damaged."""
    all_four, three = ("cut", "flip", "digit", "gone"), ("cut", "flip", "gone")
    predict = ("predict", "out", "digit.png", "--json")
    held = ("evaluate", "run", "--masks", "held", "--json")
    older = "only an older checkpoint needs it"
    lost_records = ("metrics.jsonl", "results.json")

    def at(name: str) -> Callable[[Path], Path]:
        return lambda folder: next(iter(sorted(folder.glob(name))))

    return [
        Case("newest manifest", "greedy", lambda run: manifests(run)[-1], ("cut", "flip", "digit")),
        Case("newest manifest", "greedy", lambda run: manifests(run)[-1], ("gone",), harmless="as killed before it was written"),
        Case("newest checkpoint's object", "greedy", lambda run: own_object(run, -1), three),
        Case("object that all checkpoints share", "greedy", shared_object, three),
        Case("older manifest", "greedy", lambda run: manifests(run)[0], ("cut", "digit"), harmless=older),
        Case("older checkpoint's object", "greedy", lambda run: own_object(run, 0), ("flip", "gone"), harmless=older),
        Case("spec.yaml", "greedy", at("spec.yaml"), all_four),
        Case("recipe.yaml", "greedy", at("recipe.yaml"), all_four),
        Case("run.json", "greedy", at("run.json"), all_four),
        Case("metrics.jsonl", "greedy", at("metrics.jsonl"), three, may_differ=lost_records),
        Case("cache file", "greedy", at("cache/phase_3/train_1.bin"), three),
        Case("seal of a cache file", "greedy", at("cache/phase_3/train_0.json"), ("cut", "flip", "digit")),
        Case(
            "seal of a cache file",
            "greedy",
            at("cache/phase_3/train_0.json"),
            ("gone",),
            harmless="as killed before it was written",
        ),
        Case("pruned_spec.yaml", "pruned", at("pruned_spec.yaml"), ("cut", "gone"), harmless="written again from the checkpoint"),
        Case("newest manifest", "pruned", lambda run: manifests(run)[-1], ("flip",)),
        Case("support file", "masked", at("support/phase_2.npz"), ("cut", "array", "gone"), held),
        Case("results.json", "finished", at("results.json"), ("cut", "flip", "gone"), ("compare", "run", "--json")),
        Case("results.json", "finished", at("results.json"), ("gone",), harmless="written again from the checkpoint"),
        Case("exported graph", "out", at("1/saved_model.pb"), all_four, predict),
        Case("exported weights", "out", at("1/variables/variables.data*"), three, predict),
        Case("exported index of weights", "out", at("1/variables/variables.index"), three, predict),
        Case("exported model card", "out", at("1/assets/model_card.json"), all_four, predict),
        Case("export.json", "out", at("1/export.json"), ("cut", "flip"), predict),
    ]


class Damages:
    """All cases.

    Args:
        campaign: prepared; its undisturbed runs and warm processes are used.
    """

    def __init__(self, campaign: Campaign):
        self.campaign, self.folder = campaign, campaign.folder / "damage"
        self.folder.mkdir()
        self.outputs: dict[tuple[str, ...], str] = {}

    def run(self) -> list[Damaged]:
        """Each case in each way."""
        self._bases()
        tasks = [(f"{number}_{how}", case, how) for number, case in enumerate(cases()) for how in case.damages]
        return self.campaign.each(self._one, tasks)

    def base(self, name: str) -> Path:
        """The folder that a case copies."""
        whole = {"masked": MASKED, "finished": GREEDY, "out": GREEDY}
        if name in whole:
            return self.campaign.undisturbed(whole[name]).parent / ("out" if name == "out" else "run")
        return self.folder / "bases" / name / "run"

    def _bases(self) -> None:
        def stopped(nursery: Nursery, workload: Workload) -> None:
            workdir = self.base(workload.name)
            fault = asdict(Fault("step/after", STOPPED[workload.name], "SIGTERM"))
            ended = nursery.run(workload.command(workdir.parent, workdir, "-s", "checkpoint_minutes=0.00001"), fault)
            if ended.code != 3:
                raise RuntimeError(f"the run to be damaged ended with {ended.code}: {ended.err}")

        self.campaign.each(stopped, [GREEDY, PRUNED])
        for case in cases():
            if tuple(case.command) != RESUME and tuple(case.command) not in self.outputs:
                ended = self.campaign.each(lambda nursery, c: self._command(nursery, c, self.base(c.base).parent), [case])[0]
                if ended.code:
                    raise RuntimeError(f"{case.command} of what is whole ended with {ended.code}: {ended.err}")
                self.outputs[tuple(case.command)] = last_line(ended)

    def _command(self, nursery: Nursery, case: Case, parent: Path) -> Ended:
        if "digit.png" in case.command and not (parent / "digit.png").exists():
            from PIL import Image

            Image.fromarray((load_digits().images[0] * 15).astype("uint8")).save(parent / "digit.png")
        return nursery.run([str(parent / part) if part in ("run", "out", "digit.png") else part for part in case.command])

    def _one(self, nursery: Nursery, task: tuple[str, Case, str]) -> Damaged:
        name, case, how = task
        copy = self.folder / name / self.base(case.base).name
        shutil.copytree(self.base(case.base), copy)
        file = case.find(copy)
        change = DAMAGES[how]
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()))
        ended = self._command(nursery, case, copy.parent)
        result = Damaged(case.kind, how, "", ended.err)
        result.came = self._judged(case, ended, copy, file, result)
        shutil.rmtree(copy.parent)
        return result

    def _judged(self, case: Case, ended: Ended, copy: Path, file: Path, result: Damaged) -> str:
        errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        if "Traceback" in ended.err or "fault of the program" in ended.err:
            return "crash"
        if ended.code == 2:
            clear = len(errors) == 1 and (file.name in ended.err or "checkpoint" in ended.err)
            return "error" if clear else "unclear"
        if ended.code:
            return "crash"
        result.names = self._different(case, ended, copy)
        if set(result.names) - set(case.may_differ):
            return "different"
        if any(words in ended.err for words in SAID):
            return "fall-back"
        return "harmless" if case.harmless and not result.names else "silent"

    def _different(self, case: Case, ended: Ended, copy: Path) -> list[str]:
        if tuple(case.command) != RESUME:
            same = places_apart(last_line(ended), copy.parent) == places_apart(
                self.outputs[tuple(case.command)], self.base(case.base).parent
            )
            return [] if same else ["output"]
        workload = "greedy" if case.base == "finished" else case.base
        return workloads.differences(copy, self.campaign.expected[workload])


def last_line(ended: Ended) -> str:
    """The JSON object that a command ended with."""
    return ended.out.strip().splitlines()[-1]


def places_apart(text: str, folder: Path) -> str:
    """Without the folder that it is about."""
    return text.replace(str(folder), "")
