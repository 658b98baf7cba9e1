"""`python -m tests.campaign [--json] [--seed N]`."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .damage import Damages
from .full_disk import full_disks
from .kills import Campaign
from .pairs import Pairs
from .report import Report
from .situations import Outside

PARTS = ("kills", "damage", "pairs", "outside")


def whole_campaign(folder: Path, seed: int = 0, parts: Sequence[str] = PARTS) -> Report:
    """Runs it; a line about each chain of kills goes to standard error."""
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {line}", file=sys.stderr, flush=True)

    campaign = Campaign(folder, seed, say=say)
    try:
        report = Report()
        if {"kills", "damage"} & set(parts):
            campaign.prepare()
            say("undisturbed runs are done")
        if "damage" in parts:
            report.damaged = Damages(campaign).run()
            say("damaged files are done")
        if "kills" in parts:
            report.kills = campaign.run() + full_disks(campaign)
        if "pairs" in parts:
            report.pairs = Pairs(campaign).run()
        if "outside" in parts:
            report.outside = Outside(campaign).run()
            say("situations from outside are done")
        return report
    finally:
        campaign.close()


def main() -> None:
    """Runs the campaign; exits with 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end standard output with one JSON object")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--only", choices=PARTS, help="one of the parts")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="campaign_") as place:
        report = whole_campaign(Path(place), chosen.seed, (chosen.only,) if chosen.only else PARTS)
    print(json.dumps(report.as_json()) if chosen.json else report.as_text())
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
