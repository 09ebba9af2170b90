"""Probabilistic graphs of up to a thousand nodes and more: the adjacency matrix on tiled arrays, reachability read step by step.

Beyond Liu et al. (SOT-MRAM), whose crossbars hold one question each. Edge u -> v is the cell in row u, column v of one
matrix, cut, placed and scheduled by the engine of `plan` and `compile`. Each sample writes it once, each edge with its
probability, as one cell of a pair array: +1 where it is there, else 0. Then the nodes that are reached grow like a wave:
rows of the nodes reached last are driven, and a column whose reading is above a threshold is a node that they lead to,
until nothing is new. Current flows one way, from rows to columns, so edges count in their own direction alone. Tiles
without edges are not read.

A pair that holds 0 adds an error for each row that is driven, and one node that is wrongly taken for reached leads on to
others; so no more than `rows_at_a_time` rows of a tile are driven, and a wave takes several reads.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from xbcompile.deferred import library
from xbcompile.errors import DataError
from xbcompile.experiments.graphs.sampling import best_thresholds, mean_curve
from xbcompile.options import MappingOptions
from xbcompile.planning.mapper import Mapper
from xbcompile.planning.shapes import problem_of_shapes
from xbcompile.targets import ReadBlock, Target, WrittenImages
from xbcompile.targets.counter_random import key_of, uniform
from xbcompile.targets.families.spin_orbit import SpinOrbitArray, SpinOrbitParameters
from xbcompile.targets.loaded_images import LoadedImages

if TYPE_CHECKING:
    from networkx import DiGraph

nx = library("networkx")

_CALIBRATION = 1 << 40  # numbers of samples far from those of any run
_CALIBRATION_SAMPLES, _CALIBRATION_READS = 4, 64


@dataclass(frozen=True)
class TiledSampling:
    """How a tiled graph is sampled.

    Args:
        spread_curves: whether the switching thresholds of devices spread.
        own_curves: whether the voltage of each cell is taken from its own curve; else from the mean of all curves.
        rows_at_a_time: rows of a tile driven in one read, at most.
        threshold: in units of one edge; "chip": with the fewest misreadings of configurations that are written and known.
    """

    spread_curves: bool = True
    own_curves: bool = False
    rows_at_a_time: int = 1
    threshold: float | Literal["chip"] = "chip"

    def check(self) -> None:
        """Raise DataError where a number is out of range."""
        if self.rows_at_a_time < 1:
            raise DataError(f"rows_at_a_time={self.rows_at_a_time}: at least one row must be driven")


@dataclass(frozen=True, eq=False)
class Reached:
    """What sampling gave.

    Args:
        really: which nodes can be reached from each source in what was written, bool [samples, sources, nodes].
        found: which ones the readings say, of the same shape.
        reads: reads of tiles, in all.
    """

    really: np.ndarray
    found: np.ndarray
    reads: int

    @property
    def expectation_error(self) -> float:
        """Share of answers, one per sample, source and node, that contradict what was written."""
        return float((self.really != self.found).mean())

    @property
    def probabilities(self) -> np.ndarray:
        """Share of samples in which each node was found, float64 [sources, nodes]."""
        return self.found.mean(axis=0)


class TiledGraph:
    """A graph on the arrays of one chip.

    Args:
        graph: each edge has an attribute `probability` above 0 and below 1; no edge from a node to itself.
        target: of pairs of spin-orbit devices.
        sampling: how it is sampled.
        seed: which chip.
        options: of the mapping; None: as many arrays as tiles need.

    Raises:
        DataError: another target, an edge without a probability, or no edge at all.
    """

    def __init__(
        self,
        graph: DiGraph,
        target: Target,
        sampling: TiledSampling | None = None,
        seed: int = 0,
        options: MappingOptions | None = None,
    ) -> None:
        parameters = target.parameters
        if not isinstance(parameters, SpinOrbitParameters) or parameters.devices_per_weight != 2:
            raise DataError(f"target {target.name} has no pairs of spin-orbit devices; use sot, or one that extends it")
        self.nodes: list[Hashable] = list(graph)
        self.sampling = sampling or TiledSampling()
        self.sampling.check()
        self.parameters, self.seed = parameters, seed
        self.device = SpinOrbitArray(parameters, seed)
        place = {node: index for index, node in enumerate(self.nodes)}
        edges = [(place[u], place[v]) for u, v in graph.edges if u != v]
        if not edges:
            raise DataError("the graph has no edge between two nodes")
        self.tails, self.heads = np.array(edges, np.int64).T
        found = [attributes.get("probability") for u, v, attributes in graph.edges(data=True) if u != v]
        if not all(isinstance(p, int | float | np.floating) and 0 < p < 1 for p in found):
            raise DataError("each edge needs a number above 0 and below 1 as its probability")
        self.edge_probabilities = np.array(found, np.float64)
        self.mapping = Mapper().map(
            problem_of_shapes([[len(self.nodes), len(self.nodes)]], "graph", 1, "one read"),
            target.array_spec,
            options or MappingOptions(arrays=0, effort=0.0),
        )
        self._place_edges()
        self.switching = self._switching_probabilities()
        self.threshold = self._threshold()

    def _place_edges(self) -> None:
        """Where each edge's cell is, and which tiles have any."""
        schedule = self.mapping.schedule
        tile_of = np.full(len(self.tails), -1)
        for index, tile in enumerate(schedule.tiles):
            inside = (self.tails >= tile["k0"]) & (self.tails < tile["k1"])
            inside &= (self.heads >= tile["m0"]) & (self.heads < tile["m1"])
            tile_of[inside] = index
        used, self.edge_tile = np.unique(tile_of, return_inverse=True)
        self.tiles = schedule.tiles[used]
        copies = {int(copy["image"]): int(copy["array"]) for copy in schedule.copies[::-1]}  # the first of each stays
        self.arrays = np.array([copies[int(image)] for image in self.tiles["image"]])
        own = self.tiles[self.edge_tile]
        self.edge_row = own["row"] + self.tails - own["k0"]
        logical = own["column"] + self.heads - own["m0"]
        self.edge_column = schedule.column_permutation[own["image"], logical].astype(np.int64)

    def _switching_probabilities(self) -> np.ndarray:
        """With which probability each edge's device switches, float64 [edges]."""
        curves, wanted = self.parameters.curves(), self.edge_probabilities
        if not self.sampling.spread_curves:
            return wanted
        shape = self.parameters.rows, self.parameters.columns
        own_v = np.empty(len(wanted))
        for array in np.unique(self.arrays):
            here = self.arrays[self.edge_tile] == array
            own_v[here] = curves.thresholds(self.seed, int(array), shape)[self.edge_row[here], self.edge_column[here]]
        if self.sampling.own_curves:
            return curves.probability(curves.voltage(wanted, own_v), own_v)
        return curves.probability(mean_curve(curves).voltage(wanted), own_v)

    def drawn(self, sample: int) -> np.ndarray:
        """Which edges are there in a sample, bool [edges]."""
        return uniform(key_of("graph pulses", self.seed, sample), self.switching.shape) < self.switching

    def write(self, on: np.ndarray, sample: int) -> LoadedImages:
        """Write all tiles that have edges, bool [edges] saying which are there; the images, one a tile."""
        images = self.tiles["image"]
        shared, image = np.unique(images, return_inverse=True)
        cells = np.full((len(shared), self.parameters.rows, self.parameters.columns), 1, np.uint8)  # level 0
        cells[image[self.edge_tile[on]], self.edge_row[on], self.edge_column[on]] = 2
        numbers = (sample * self.mapping.schedule.images + images.astype(np.int64))[:, None]
        return self.device.load(WrittenImages(self.arrays, images, cells[image], numbers, np.zeros(numbers.shape)))

    def rows_of_tiles(self, new: np.ndarray, part: int) -> list[np.ndarray]:
        """Rows that are driven in one part of a wave: bool [vectors, rows of the tile] of each tile.

        Args:
            new: nodes reached last, bool [vectors, nodes].
            part: the first `rows_at_a_time` of those that a tile has are part 0, the next ones part 1.
        """
        most, result = self.sampling.rows_at_a_time, []
        for tile in self.tiles:
            rows = new[:, tile["k0"] : tile["k1"]]
            rank = np.cumsum(rows, axis=1) - 1
            result.append(rows & (rank // most == part))
        return result

    def read(self, written: LoadedImages, driven: Sequence[np.ndarray], first_vector: int = 0) -> list[np.ndarray]:
        """Readings of each tile's own columns, in units of one edge: [vectors, columns of the tile] of each.

        Args:
            written: of `write`.
            driven: of `rows_of_tiles`.
            first_vector: its number.
        """
        drives = np.zeros((len(self.tiles), len(driven[0]), 1, self.parameters.rows), np.float32)
        for index, (tile, rows) in enumerate(zip(self.tiles, driven, strict=True)):
            drives[index, :, 0, tile["row"] : tile["row"] + rows.shape[1]] = rows
        readings = written.read(drives, ReadBlock(np.arange(len(self.tiles)), first_vector))[:, :, 0]
        return [
            reading[:, self.mapping.schedule.column_permutation[tile["image"], columns]]
            for reading, tile in zip(readings, self.tiles, strict=True)
            for columns in [np.arange(tile["column"], tile["column"] + tile["m1"] - tile["m0"])]
        ]

    def reach(self, written: LoadedImages, sources: Sequence[int]) -> tuple[np.ndarray, int]:
        """Which nodes the readings say can be reached from each source, bool [sources, nodes], and how many reads it took."""
        reached = np.zeros((len(sources), len(self.nodes)), bool)
        reached[np.arange(len(sources)), sources] = True
        new, vectors, reads = reached.copy(), 0, 0
        while new.any():
            led_to = np.zeros_like(reached)
            part = 0
            driven = self.rows_of_tiles(new, part)
            while any(rows.any() for rows in driven):
                for tile, rows, reading in zip(self.tiles, driven, self.read(written, driven, vectors), strict=True):
                    active = rows.any(axis=1, keepdims=True)
                    led_to[:, tile["m0"] : tile["m1"]] |= (reading > self.threshold) & active
                    reads += int(active.sum())
                vectors += len(sources)
                part += 1
                driven = self.rows_of_tiles(new, part)
            new = led_to & ~reached
            reached |= new
        return reached, reads

    def really_reached(self, on: np.ndarray, sources: Sequence[int]) -> np.ndarray:
        """Which nodes can be reached over the edges that are there, bool [sources, nodes]."""
        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(self.nodes)))
        graph.add_edges_from(zip(self.tails[on].tolist(), self.heads[on].tolist(), strict=True))
        result = np.zeros((len(sources), len(self.nodes)), bool)
        for row, source in enumerate(sources):
            result[row, [source, *nx.descendants(graph, source)]] = True
        return result

    def _threshold(self) -> float:
        """The threshold, in units of one edge."""
        if self.sampling.threshold != "chip":
            return float(self.sampling.threshold)
        rng = np.random.default_rng(0)
        found, right = [], []
        for sample in range(_CALIBRATION, _CALIBRATION + _CALIBRATION_SAMPLES):
            on = self.drawn(sample)
            driven = [self._calibration_rows(rng, int(tile["k1"] - tile["k0"])) for tile in self.tiles]
            readings = self.read(self.write(on, sample), driven)
            for index, (tile, rows, reading) in enumerate(zip(self.tiles, driven, readings, strict=True)):
                here = on & (self.edge_tile == index)
                edges = np.zeros((rows.shape[1], reading.shape[1]), np.int64)
                edges[self.tails[here] - tile["k0"], self.heads[here] - tile["m0"]] = 1
                found.append(reading.ravel())
                right.append((rows @ edges > 0).ravel())
        currents, connected = np.concatenate(found)[None], np.concatenate(right)[None]
        return float(best_thresholds(currents, connected, np.ones(currents.shape[1]))[0])

    def _calibration_rows(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Rows of a tile driven for calibration, up to as many as in a wave: bool [reads, rows]."""
        driven = np.zeros((_CALIBRATION_READS, rows), bool)
        for vector in driven:
            vector[rng.choice(rows, rng.integers(1, min(self.sampling.rows_at_a_time, rows) + 1), replace=False)] = True
        return driven

    def sample(self, sources: Sequence[Hashable], samples: int) -> Reached:
        """Write the graph so many times, and read from each source.

        Raises:
            DataError: a source that the graph does not have, or no sample.
        """
        if samples < 1:
            raise DataError(f"{samples} samples: at least 1 must be taken")
        for source in sources:
            if source not in self.nodes:
                raise DataError(f"the graph has no node {source!r}")
        places = [self.nodes.index(source) for source in sources]
        really, found, reads = [], [], 0
        for sample in range(samples):
            on = self.drawn(sample)
            reached, taken = self.reach(self.write(on, sample), places)
            really.append(self.really_reached(on, places))
            found.append(reached)
            reads += taken
        return Reached(np.stack(really), np.stack(found), reads)


def random_graph(nodes: int, edges_per_node: float = 3.0, seed: int = 0) -> DiGraph:
    """A random directed graph whose edges have probabilities from 0.2 to 0.8: half of them are there in a sample, so
    that a source reaches few nodes, or about half of all (a giant component has more than one edge a node).

    Args:
        nodes: how many.
        edges_per_node: on average.
        seed: which one.
    """
    rng = np.random.default_rng(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    while graph.number_of_edges() < edges_per_node * nodes:
        u, v = (int(each) for each in rng.integers(0, nodes, 2))
        if u != v:
            graph.add_edge(u, v, probability=float(rng.uniform(0.2, 0.8)))
    return graph
