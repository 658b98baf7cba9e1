"""Activations in graphs that TensorFlow rewrites: every one, with and without batch norm, in every precision."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from activation_cases import ACTIVATIONS, PRECISIONS
from conftest import some

# Of the largest value: of a map and of the weights after a step. Losses are means of float32 sums.
COARSE = {"float32": 1e-6, "mixed_bfloat16": 3e-2, "mixed_float16": 3e-3}
STEP = {"float32": 1e-5, "mixed_bfloat16": 3e-3, "mixed_float16": 1e-3}


@pytest.fixture(scope="module", params=some("float32", slow=PRECISIONS[1:]))
def precision(request):
    return request.param


@pytest.fixture(scope="module", params=some("true", slow=["false"]))
def batch_norm(request):
    return request.param


@pytest.fixture(scope="module")
def table(precision, batch_norm):
    # In a process of its own: without oneDNN, which old processors do not get, nothing is fused.
    place = Path(__file__).parent.parent
    program = [sys.executable, place / "activation_cases.py", precision, batch_norm]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gives_the_formula_in_training_evaluation_and_exports(table, activation, precision):
    """3x3, 1x1 and residual layers of frozen blocks, trained blocks, and heads."""
    found = table[activation]
    assert set(found) >= {"graph", "evaluate", "train"}, found
    allowed = {"graph": COARSE[precision], "evaluate": 1e-5, "train": STEP[precision], "saved": COARSE[precision], "files": 0}
    over = {place: figure for place, figure in found.items() if isinstance(figure, str) or figure > allowed[place]}
    assert not over
