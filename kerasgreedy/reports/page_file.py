"""Pages that are written: where they may stand, and how large they may be."""

from pathlib import Path

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import write_atomically, writing_fault
from kerasgreedy.pictures import begins_with, refuse_foreign
from kerasgreedy.reports.page import MADE_BY, MOST_BYTES


def write_page(target: Path, content: str, overwrite: bool = False) -> int:
    """Writes a page; at any moment the old or the whole new one is there.

    Args:
        overwrite: a file that is there may be replaced though it was not made here.

    Returns:
        its bytes.

    Raises:
        InputError: it is a folder, was not made here, or the page would be larger than a megabyte.
        WorkdirError: it cannot be written.
    """
    check_page(target, overwrite)
    data = content.encode(errors="backslashreplace")  # names of files need not be text
    if len(data) > MOST_BYTES:
        raise InputError(f"{target}: the page would have {len(data):,} bytes; allowed: {MOST_BYTES:,}. Give fewer runs or images")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, data)
    except OSError as error:
        raise WorkdirError(f"{target}: {writing_fault(error) or f'cannot be written ({error})'}") from None
    return len(data)


def check_page(target: Path, overwrite: bool = False) -> None:
    """Refuses a place where no page can be written.

    Raises:
        InputError: it is a folder, or a file that was not made here.
    """
    if target.is_dir():
        raise InputError(f"{target}: is a folder; allowed: an HTML file")
    if not overwrite:
        refuse_foreign(target, begins_with(MADE_BY, 1000))
