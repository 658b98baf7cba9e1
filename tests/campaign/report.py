"""The tables of a campaign, for people and for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .damage import Damaged
from .plan import Kill

BAD = ("silent", "unclear", "crash", "different")


@dataclass
class Report:
    """What a campaign came to."""

    kills: list[Kill] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """A line for each thing that should not be."""
        lines = [
            f"{kill}: {'; '.join([*kill.problems, *kill.different])}" for kill in self.kills if kill.problems or kill.different
        ]
        return lines + [str(each) for each in self.damaged if each.came in BAD]

    def kill_rows(self) -> list[dict[str, Any]]:
        """One row for each event and signal."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for kill in self.kills:
            first = {
                "event": kill.kind,
                "signal": kill.signal,
                "kills": 0,
                "in_a_write": 0,
                "runs_lost": 0,
                "different_results": 0,
            }
            row = rows.setdefault((kill.kind, kill.signal), first)
            row["kills"] += 1
            row["in_a_write"] += kill.in_a_write
            row["runs_lost"] += kill.lost
            row["different_results"] += bool(kill.different)
        return sorted(rows.values(), key=lambda row: (row["event"], row["signal"]))

    def damage_rows(self) -> list[dict[str, Any]]:
        """One row for each kind of file."""
        rows: dict[str, Counter[str]] = {}
        for each in self.damaged:
            rows.setdefault(each.kind, Counter())[each.came] += 1
        return [
            {
                "file": kind,
                "damaged": came.total(),
                "clear_errors": came["error"],
                "fall_backs_said": came["fall-back"],
                "harmless": came["harmless"],
                "silent_or_unclear": came["silent"] + came["unclear"],
                "crashes": came["crash"],
                "different_results": came["different"],
            }
            for kind, came in rows.items()
        ]

    def totals(self) -> dict[str, int]:
        """Over all rows."""
        signals = Counter(kill.signal for kill in self.kills)
        came = Counter(each.came for each in self.damaged)
        return {
            "kills": signals["SIGKILL"] + signals["SIGTERM"],
            "full_disks": signals["ENOSPC"],
            "in_a_write": sum(kill.in_a_write for kill in self.kills),
            "runs_lost": sum(kill.lost for kill in self.kills),
            "different_results": sum(bool(kill.different) for kill in self.kills) + came["different"],
            "damaged_files": came.total(),
            "crashes": came["crash"],
            "silent_or_unclear": came["silent"] + came["unclear"],
            "problems": len(self.problems),
        }

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {"totals": self.totals(), "kills": self.kill_rows(), "damaged": self.damage_rows(), "problems": self.problems}

    def as_text(self) -> str:
        """Two tables in Markdown, one line of totals, and what should not be."""
        totals = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in self.totals().items())
        return "\n\n".join([_table(self.kill_rows()), _table(self.damage_rows()), f"totals: {totals}", *self.problems])


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "(nothing)"
    header = [name.replace("_", " ") for name in rows[0]]
    lines = [header, ["---"] * len(header), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
