"""Tables in a narrow terminal: no word is broken."""

import re

import pytest
from rich.console import Console

from kerasgreedy.reports.tables import column_widths, terminal_table

HEADER = ["block", "output", "parameters", "multiply-adds", "head"]
ROWS = [
    ["block_1", "224x224x64", "1,856", "86.7M", "k = 3"],
    ["block_12", "7x7x512", "2,360,832", "1.8G", "own layers, and more"],
]


def printed(width):
    console = Console(width=width)
    with console.capture() as caught:
        console.print(terminal_table(HEADER, ROWS, "a title that is long enough to be wrapped somewhere", width))
    return caught.get()


@pytest.mark.parametrize("width", [200, 80, 70, 60, 52, 48, 30])
def test_no_word_is_broken_and_no_line_too_long(width):
    text = printed(width)
    words = set(re.findall(r"[\w,.\-=]+", text))
    for cell in (cell for row in (HEADER, *ROWS) for cell in row):
        assert set(re.findall(r"[\w,.\-=]+", cell)) <= words, (width, cell)
    assert all(len(line.rstrip()) <= max(width, 33) for line in text.splitlines())
    # Longest words: 8 + 10 + 10 + 13 + 7 = 48; frames need 16 more, the plain style 8.
    assert ("┃" in text) == (width >= 64) and ("parameters     1,856" in text) == (width < 56)


def test_widths_by_hand():
    """Least 3 and 5, wanted 7 and 5; of 10 places the two that are left go to the first."""
    rows = [["abc", "hello"], ["abc def", "x"]]
    assert column_widths(rows, 10) == [5, 5] and column_widths(rows, 99) == [7, 5] and column_widths(rows, 7) is None
