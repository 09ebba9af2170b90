"""What no mapping can do better, whatever its cuts, packing and schedule, under given options."""

from __future__ import annotations

from xbcompile.ir import ArraySpec
from xbcompile.options import MappingOptions
from xbcompile.planning.mapper import fewest_tiles
from xbcompile.planning.planned import PlannedMatrix, PlannedNetwork


def lower_bounds(
    network: PlannedNetwork, spec: ArraySpec, options: MappingOptions, images: int = 0
) -> dict[str, float]:
    """Lower bounds on the figures of `figures.figures_of` (all but "stationary").

    Of the weights, one array's cells hold one each; of the cuts, see `fewest_tiles`. Where N images share A < N arrays and
    every batch ends with the images that it started with, an array with n > 1 images is written at least n times per batch,
    and at most A - 1 arrays have one image: at least N - A + 1 writes, and at least 2. The times are those of all steps
    spread evenly over the arrays, and of the longest chain of uses, of which each takes at least one tile's reads, shared
    by as many copies as there are arrays (none where each image has one array).

    Args:
        network: what is mapped.
        spec: the array.
        options: `arrays`, `batch` and `packing` count.
        images: a lower bound on the images of the layouts that the options allow, where a better one is known.
    """
    tiles = {i: _tiles(network.layers[i], spec) for i in set(network.matrices)}
    fewest, batch, arrays = fewest_tiles(network, spec.rows, spec.columns), options.batch, options.arrays
    images = max(images, fewest if options.packing == "none" else -(-network.weights // (spec.rows * spec.columns)))
    writes = max(2, images - arrays + 1) if 0 < arrays < images else 0
    reads = sum(tiles[use.matrix] * use.reads for use in network.uses)
    one_by_one_s = reads * batch * spec.t_read_s + writes * spec.t_write_s
    path_s = _path_s(network, spec, tiles, batch, arrays)
    period_s = one_by_one_s / arrays if arrays else _busiest_s(network, spec, batch)
    return {
        "images": images,
        "arrays": 1 if arrays else images,
        "tiles": fewest,
        "reads": reads,
        "weight_updates": writes,
        "latency_s": max(period_s, path_s),
        "period_s": period_s,
        "t_per_inference_s": period_s / batch,
        "energy_j": reads * spec.e_read_j + writes * spec.e_write_j / batch,
    }


def _tiles(layer: PlannedMatrix, spec: ArraySpec) -> int:
    return layer.groups * -(-layer.inputs // spec.rows) * -(-layer.outputs // spec.columns)


def _path_s(network: PlannedNetwork, spec: ArraySpec, tiles: dict[int, int], batch: int, arrays: int) -> float:
    """The longest chain of uses that wait for each other."""
    ends: list[float] = []
    for use in network.uses:  # in an order of execution
        if arrays:
            share = -(-batch * use.vectors // arrays) * (use.reads // use.vectors)
            reads = max(share, tiles[use.matrix] * use.reads * batch / arrays)
        else:
            reads = use.reads * batch
        ends.append(reads * spec.t_read_s + max((ends[before] for before in use.waits_for), default=0.0))
    return max(ends, default=0.0)


def _busiest_s(network: PlannedNetwork, spec: ArraySpec, batch: int) -> float:
    """Where each image has one array: the longest that one tile is read in a batch."""
    reads = dict.fromkeys(network.matrices, 0)
    for use in network.uses:
        reads[use.matrix] += use.reads
    return max(reads.values(), default=0) * batch * spec.t_read_s
