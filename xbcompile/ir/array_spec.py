"""What the compiler may know of a target's array: sizes, alphabets, costs. No resistance, current or voltage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xbcompile.ir.content_equality import ContentEqual

MOST_LEVELS = 256  # level indices are uint8
DRIVES = ("analogue", "signed", "bipolar", "unipolar", "unbounded")


@dataclass(frozen=True, eq=False)
class ArraySpec(ContentEqual):
    """One physical array as seen by passes, tiler, program and runtime.

    Args:
        rows: rows (inputs) of the array.
        columns: columns (outputs) of the array.
        levels: float32 [L] strictly increasing normalised cell levels; None: a cell holds any real value.
        drive: what a row accepts in one read: "bipolar" (-1 or +1), "unipolar" (0 or 1), "analogue" (0..1),
            "signed" (-1..1), "unbounded" (any real number; only an ideal array).
        row_weight: float64 [rows], weight of each row's product in a read, normalised to mean 1.
        idle_drive: float32 [rows], drive of rows that a read does not use.
        neutral_level: uint8 [rows], level index written into unused cells of each row (0 when levels is None).
        t_write_row_s: time to write one row.
        t_read_s: time of one read (all columns).
        e_write_row_j: energy to write one row.
        e_read_j: energy of one read (all columns).
        cell_limit: where `levels` is None, cells hold values in [-cell_limit, cell_limit]; None: without limit.
        shares_rows: tiles of one array may use the same rows, on other columns.
        shares_columns: tiles of one array may use the same columns, on other rows.
        writes_while_reading: an array may be written while another one is read.
        writes_at_a_time: arrays written side by side at most; 0: any number.

    Raises:
        ValueError: a field is not as stated: a fault of the model family that made it, since a description's numbers are
            checked before.
    """

    rows: int
    columns: int
    levels: np.ndarray | None
    drive: str
    row_weight: np.ndarray
    idle_drive: np.ndarray
    neutral_level: np.ndarray
    t_write_row_s: float
    t_read_s: float
    e_write_row_j: float
    e_read_j: float
    cell_limit: float | None = None
    shares_rows: bool = True
    shares_columns: bool = True
    writes_while_reading: bool = True
    writes_at_a_time: int = 0

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            _expect(
                _is_whole(getattr(self, name)) and getattr(self, name) >= 1, name, "a whole number, 1 or more", self
            )
        _expect(self.drive in DRIVES, "drive", f"one of {', '.join(DRIVES)}", self)
        for name in ("t_write_row_s", "t_read_s", "e_write_row_j", "e_read_j"):
            cost = getattr(self, name)
            _expect(_is_number(cost) and 0 <= cost < np.inf, name, "a finite number, 0 or more", self)
        for name in ("shares_rows", "shares_columns", "writes_while_reading"):
            _expect(isinstance(getattr(self, name), bool), name, "true or false", self)
        at_a_time = self.writes_at_a_time
        _expect(_is_whole(at_a_time) and at_a_time >= 0, "writes_at_a_time", "a whole number, 0 or more", self)
        self._check_cells()
        self._check_rows()

    def _check_cells(self) -> None:
        """The level table and the range of cells without one."""
        levels, limit = self.levels, self.cell_limit
        if levels is not None:
            right = _is_array(levels, np.float32) and levels.ndim == 1 and 2 <= len(levels) <= MOST_LEVELS
            right = right and bool(np.isfinite(levels).all() and (np.diff(levels) > 0).all())
            _expect(right, "levels", f"None or float32 [2 to {MOST_LEVELS}], finite and strictly increasing", self)
        right = limit is None or (levels is None and _is_number(limit) and 0 < limit < np.inf)
        _expect(right, "cell_limit", "None, or a finite number above 0 where levels is None", self)

    def _check_rows(self) -> None:
        """What is given row by row."""
        for name, dtype in (("row_weight", np.float64), ("idle_drive", np.float32), ("neutral_level", np.uint8)):
            value = getattr(self, name)
            right = _is_array(value, dtype) and value.shape == (self.rows,) and bool(np.isfinite(value).all())
            _expect(right, name, f"{dtype.__name__} [{self.rows}], finite", self)
        most = 0 if self.levels is None else len(self.levels) - 1
        _expect(int(self.neutral_level.max()) <= most, "neutral_level", f"indices of levels, 0 to {most}", self)

    @classmethod
    def uniform(cls, rows: int, columns: int, levels: np.ndarray | None, drive: str, **costs: Any) -> ArraySpec:
        """An array whose rows count alike and add nothing when undriven; `costs` are the four times and energies (and
        `cell_limit` where there is one). Unused cells hold the level nearest 0.
        """
        return cls(
            rows=rows,
            columns=columns,
            levels=levels,
            drive=drive,
            row_weight=np.ones(rows),
            idle_drive=np.zeros(rows, np.float32),
            neutral_level=np.full(rows, 0 if levels is None else np.abs(levels).argmin(), np.uint8),
            **costs,
        )

    @property
    def drives_both_signs(self) -> bool:
        """Whether a coded value v in 0..1 drives a row as 2 v - 1."""
        return self.drive in ("bipolar", "signed")

    @property
    def has_row_weights(self) -> bool:
        """Whether a row's position changes its weight in a read."""
        return bool(np.any(self.row_weight != 1.0))

    @property
    def t_write_s(self) -> float:
        """Time to write the whole array."""
        return self.rows * self.t_write_row_s

    @property
    def e_write_j(self) -> float:
        """Energy to write the whole array."""
        return self.rows * self.e_write_row_j


def _expect(right: bool, name: str, allowed: str, spec: ArraySpec) -> None:
    if not right:
        raise ValueError(f"ArraySpec.{name} = {getattr(spec, name)!r}; it must be {allowed}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_array(value: object, dtype: type) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype
