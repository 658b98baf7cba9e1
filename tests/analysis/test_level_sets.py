"""The claims of examples/level_sets.py, one pair of each."""

import runpy

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_claims_about_level_sets():
    example = runpy.run_path(str(ROOT / "examples/level_sets.py"))
    rows = [row for part in ("linear", "wider", "quadratic") for row in example[part](1)] + example["two_components"]()
    found = {name: [float(value) for value in values] for name, *values, _ in rows}
    for name, (ends, straight, path) in found.items():
        if "1-1" in name:
            assert path == pytest.approx(0.5, abs=0.01)  # closed forms: every way meets 1/2
        else:
            assert path < max(1.2 * ends, ends + 0.02) and path <= straight, name
