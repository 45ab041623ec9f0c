"""Small tables in CSV files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from nisampler.base.storage import read_bounded
from nisampler.errors import CorruptFileError


def read_rows(path: str | Path, most: int, what: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a head, each by the names of its columns.

    Parameters
    ----------
    path
        The file.
    most
        Bytes that it may have.
    what
        What a larger one is not, for the message.

    Raises
    ------
    StorageError
        If it cannot be read.
    CorruptFileError
        If it is larger, or no table in UTF-8.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder, "cells.csv")
    ...     _ = place.write_text("x,y\\n1,2\\n")
    ...     read_rows(place, 100, "a list of cells")
    [{'x': '1', 'y': '2'}]
    """
    try:
        return list(csv.DictReader(io.StringIO(read_bounded(path, most, what).decode())))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptFileError(f"{path} is not {what}: {error}; save it as comma-separated text in UTF-8") from error
