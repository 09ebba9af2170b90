"""What of a network's mapping depends on more than shapes: which packing, columns that fit what is written before, sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir import ArraySpec, Network, Schedule, Use
from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.ir.schedule import vectors_of
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.program.program import Program
from xbcompile.tiler import Layout, MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.floorplan.place import place_on_floorplan
from xbcompile.tiler.floorplan.traffic import array_traffic
from xbcompile.tiler.reuse.reuse_cells import reuse_cells

PACKINGS = ("auto", "dense", "in-order")


class Layouts:
    """Layouts by matrix shapes: passes ask for row positions before the weights are coded, the tiler asks again.

    Args:
        spec: the target's array.
        arrays: physical arrays, 0 for one per image.
        pack: several tiles may share an image.
        cuts: see `plan_layout`.
        packing: "dense", "in-order", or "auto" for the one that is written less often on these arrays.
        effort: see `plan_layout`.

    Raises:
        ScheduleError: an unknown packing.
    """

    def __init__(self, spec: ArraySpec, arrays: int, *, pack: bool, cuts: str, packing: str, effort: float) -> None:
        if packing not in PACKINGS:
            raise ScheduleError(f"packing={packing!r} is unknown: use one of {', '.join(PACKINGS)}")
        self.spec, self.arrays, self.pack, self.cuts, self.effort = spec, arrays, pack, cuts, effort
        self.wanted = packing
        self._found: dict[tuple[tuple[int, ...], ...], tuple[str, Layout]] = {}

    def layout(self, network: Network) -> Layout:
        """Tiles of a network's matrices, one set for each that layers share."""
        return self._chosen(network)[1]

    def packing(self, network: Network) -> str:
        """The packing of that layout."""
        return self._chosen(network)[0]

    def images(self, network: Network) -> int:
        """See PassContext."""
        return self.layout(network).images

    def row_weights(self, network: Network) -> list[np.ndarray | None]:
        """See PassContext."""
        if not self.spec.has_row_weights:
            return [None] * len(network.layers)
        tiles, layers = self.layout(network).tiles, network.layers
        weights = {
            owner: row_weight_of_layer(tiles, owner, layers[owner].weights.shape, self.spec)
            for owner in set(network.matrices)
        }
        return [weights[owner] for owner in network.matrices]

    def _chosen(self, network: Network) -> tuple[str, Layout]:
        owners = sorted(set(network.matrices))
        uses = network.uses
        vectors = vectors_of(owners, uses)
        shapes = tuple((*network.layers[owner].shape, reads) for owner, reads in zip(owners, vectors, strict=True))
        if shapes not in self._found:
            self._found[shapes] = self._choose([MatrixShape(*shape) for shape in shapes], owners, uses)
        packing, layout = self._found[shapes]
        return packing, layout.for_layers(owners)

    def _choose(self, shapes: list[MatrixShape], owners: list[int], uses: Sequence[Use]) -> tuple[str, Layout]:
        if self.wanted != "auto":
            return self.wanted, self._plan(shapes, in_order=self.wanted == "in-order")
        dense = self._plan(shapes, in_order=False)
        if not self.pack or not 0 < self.arrays < dense.images:
            return "dense", dense
        updates, least = self._updates(dense, owners, uses)
        if updates <= least:
            return "dense", dense
        in_order = self._plan(shapes, in_order=True)
        return ("in-order", in_order) if self._updates(in_order, owners, uses)[0] < updates else ("dense", dense)

    def _updates(self, layout: Layout, owners: list[int], uses: Sequence[Use]) -> tuple[int, int]:
        """Weight updates of a layout, and the fewest that as many images can have: all arrays but one keep theirs."""
        schedule = make_schedule(
            layout.for_layers(owners), uses, self.spec, arrays=self.arrays, effort=0, objective="weight-updates"
        )
        return schedule.weight_updates, layout.images - self.arrays + 1

    def _plan(self, shapes: list[MatrixShape], *, in_order: bool) -> Layout:
        return plan_layout(
            shapes,
            self.spec.rows,
            self.spec.columns,
            pack=self.pack,
            cuts=self.cuts,
            fixed_rows=self.spec.has_row_weights,
            effort=self.effort,
            in_order=in_order,
            share_rows=self.spec.shares_rows,
            share_columns=self.spec.shares_columns,
        )


def with_reused_writes(program: Program, rewrite: str, effort: float) -> Program:
    """The program with `reuse_cells`, which needs its cells; see there."""
    schedule = program.schedule
    plain = np.tile(np.arange(schedule.columns, dtype=np.uint16), (schedule.images, 1))
    logical = replace(program, schedule=replace(schedule, column_permutation=plain))
    reused = reuse_cells(
        schedule, logical.cells, program.network.uses, program.spec, rewrite=rewrite, effort=effort
    )  # fmt: skip
    return program if reused is schedule else replace(program, schedule=reused)


def with_sites(schedule: Schedule, uses: Sequence[Use], floorplan: str | None, *, seed: int, effort: float) -> Schedule:
    """The schedule with its arrays on a floorplan; the same without one.

    Raises:
        ScheduleError: a floorplan that cannot be read, or has too few sites.
    """
    if floorplan is None:
        return schedule
    grid = SiteGrid.parse(floorplan)
    traffic = array_traffic(schedule.tiles, schedule.copies["image"], schedule.copies["array"], uses)
    placed = place_on_floorplan(traffic, schedule.arrays, grid, seed=seed, effort=effort)
    return replace(
        schedule,
        site=placed.site,
        floorplan=str(grid),
        hop_values=placed.cost,
        hop_values_lower_bound=placed.lower_bound,
    )
