"""The grid of sites of a floorplan, on which physical arrays can sit, and how far apart they are."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from xbcompile.errors import ScheduleError, shown

MAX_SITES = 1 << 22  # tables with one row per site stay below 100 MB
CHIP_HOP_COST = 10  # assumed: a value between chips costs about an order of magnitude more than one between neighbours
_TEXT = re.compile(r"([0-9]{1,9})x([0-9]{1,9})(?:x([0-9]{1,9}))?")


@dataclass(frozen=True)
class SiteGrid:
    """Equal chips in a row, each a grid of sites; a site takes one array.

    A value moves along the grid (rows and columns of sites) and from chip to chip through the edges that face each
    other: a hop between neighbouring sites of a chip costs 1, a hop from the last column of a chip to the first column of the
    next one costs `chip_hop_cost`. Site i is at chip i // (site_rows * site_columns), and row by row within the chip.

    Args:
        site_rows: rows of sites on a chip, at least 1.
        site_columns: columns of sites on a chip, at least 1.
        chips: number of chips, at least 1.
        chip_hop_cost: cost of a crossing between neighbouring chips in hops within a chip, at least 1; the default is
            assumed.

    Raises:
        ScheduleError: a number below 1, or more than `MAX_SITES` sites.
    """

    site_rows: int
    site_columns: int
    chips: int = 1
    chip_hop_cost: int = CHIP_HOP_COST

    def __post_init__(self) -> None:
        for name in ("site_rows", "site_columns", "chips", "chip_hop_cost"):
            if getattr(self, name) < 1:
                raise ScheduleError(f"floorplan: {name} = {getattr(self, name)}; it must be at least 1")
        if self.sites > MAX_SITES:
            raise ScheduleError(
                f"floorplan {self}: {self.sites:,} sites are more than the {MAX_SITES:,} that can be handled; use fewer"
            )

    def __str__(self) -> str:
        """The text that `parse` reads: site rows x site columns x chips."""
        return f"{self.site_rows}x{self.site_columns}x{self.chips}"

    @classmethod
    def parse(cls, text: str, *, chip_hop_cost: int = CHIP_HOP_COST) -> SiteGrid:
        """Read "8x8" (site rows x site columns of one chip) or "8x8x2" (of each of two chips).

        Raises:
            ScheduleError: another text, a number below 1, or too many sites.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise ScheduleError(
                f"floorplan {shown(text)}: give site rows x site columns, as in 8x8, or with a number of chips, as in 8x8x2"
            )
        rows, columns, chips = (int(number or 1) for number in found.groups())
        return cls(rows, columns, chips, chip_hop_cost)

    @property
    def sites(self) -> int:
        """Number of sites on all chips."""
        return self.chips * self.site_rows * self.site_columns

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each site is, in hops: down (its row) and across (its column, crossings counted), int64 [sites] each.

        The distance of two sites is the sum of the differences in both coordinates.
        """
        site = np.arange(self.sites, dtype=np.int64)
        chip, rest = np.divmod(site, self.site_rows * self.site_columns)
        row, column = np.divmod(rest, self.site_columns)
        return row, column + chip * (self.site_columns - 1 + self.chip_hop_cost)

    def distance(self) -> np.ndarray:
        """Hops between any two sites, int64 [sites, sites]."""
        down, across = self.coordinates()
        hops: np.ndarray = np.abs(down[:, None] - down) + np.abs(across[:, None] - across)
        return hops
