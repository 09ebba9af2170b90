"""Tables of numbers in .csv files."""

from __future__ import annotations

import csv
import warnings

import numpy as np

from xbcompile.data.files import check_file
from xbcompile.errors import DataError, quoted

_MOST_LINE_CHARACTERS = 1 << 24  # of the first line; assumed
_WHOLE = 2**53  # up to which float64 holds all whole numbers


def read_csv(path: str) -> tuple[list[str], list[np.ndarray]]:
    """Names and numbers of the columns of a file, separated by commas.

    Names are those of the first line, unless all in it are numbers: then columns are called 0, 1, ... Columns of whole numbers
    are int64, others float64.

    Args:
        path: of the file, UTF-8.

    Returns:
        names, and an array [rows] for each.

    Raises:
        DataError: there is no such file, it has no rows, or rows of different lengths, or what is no number.
    """
    check_file(path, f"data file {quoted(path)}")

    def fault(text: str) -> DataError:
        return DataError(f"data file {quoted(path)} is no table of numbers separated by commas: {text}")

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline(_MOST_LINE_CHARACTERS)
            names = next(csv.reader([first]), [])
            has_names = not all(map(_is_number, names))
            if not names:
                raise fault("its first line is empty")
            if not has_names:
                file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file without rows, which is told below
                values = np.loadtxt(file, np.float64, delimiter=",", ndmin=2, comments=None, quotechar='"')
    except UnicodeDecodeError:
        raise fault("it is no text in UTF-8") from None
    except OSError as error:
        raise DataError(f"data file {quoted(path)} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise fault(str(error)) from None
    if not values.size:
        raise fault("it has no rows")
    if values.shape[1] != len(names):
        raise fault(f"its first line has {len(names)} columns, and its rows {values.shape[1]}")
    named = [name.strip() for name in names] if has_names else [str(i) for i in range(len(names))]
    return named, [_as_whole(column) for column in values.T]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_whole(column: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(column).all() and (np.abs(column) <= _WHOLE).all() and (column == np.floor(column)).all()
    return column.astype(np.int64) if whole else column
