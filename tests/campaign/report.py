"""The tables of a campaign, for people and for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .damage import Damaged
from .pairs import Pair, pair_rows
from .plan import Kill
from .situations import BAD as BAD_SITUATIONS
from .situations import Tried, situation_rows

BAD = ("silent", "unclear", "crash", "different")


@dataclass
class Report:
    """What a campaign came to."""

    kills: list[Kill] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    outside: list[Tried] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """A line for each thing that should not be."""
        lines = [
            f"{kill}: {'; '.join([*kill.problems, *kill.different])}" for kill in self.kills if kill.problems or kill.different
        ]
        lines += [str(each) for each in self.damaged if each.came in BAD]
        lines += [str(pair) for pair in self.pairs if pair.left or pair.came not in ("one won", "both done")]
        return lines + [str(each) for each in self.outside if each.came in BAD_SITUATIONS]

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
            "pairs": len(self.pairs),
            "situations": len(self.outside),
            "problems": len(self.problems),
        }

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "totals": self.totals(),
            "kills": self.kill_rows(),
            "damaged": self.damage_rows(),
            "pairs": pair_rows(self.pairs),
            "outside": situation_rows(self.outside),
            "problems": self.problems,
        }

    def as_text(self) -> str:
        """Tables in Markdown, one line of totals, and what should not be."""
        totals = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in self.totals().items())
        rows = (self.kill_rows(), self.damage_rows(), pair_rows(self.pairs), situation_rows(self.outside))
        return "\n\n".join([*(_table(each) for each in rows if each), f"totals: {totals}", *self.problems])


def _table(rows: Sequence[dict[str, Any]]) -> str:
    header = [name.replace("_", " ") for name in rows[0]]
    lines = [header, ["---"] * len(header), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
