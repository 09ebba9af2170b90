"""What must hold of every layout and of every schedule, on 10,000 random layouts, a quarter of them with a schedule; and that
the checks find what is broken. Instance i follows from i alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.ir.schedule import READ, WRITE, share_of
from xbcompile.tiler import Layout, MatrixShape, make_schedule, plan_layout
from xbcompile.verification.schedule_checks import check_schedule

INSTANCES, CHUNK = 10_000, 1_000
OBJECTIVES = ["latency", "throughput", "energy", "weight-updates", "latency=0.5,energy=0.5"]


@dataclass(frozen=True)
class NamedShape(MatrixShape):
    """A shape with the name that messages show."""

    name: str = ""


@dataclass(frozen=True)
class Instance:
    """What is mapped, and how."""

    layers: list[NamedShape]
    matrices: list[int]
    uses: list[Use]
    spec: ArraySpec
    packing: dict[str, object]
    arrays: int
    batch: int
    objective: str
    effort: float

    def layout(self) -> Layout:
        return plan_layout(
            self.layers, self.spec.rows, self.spec.columns, effort=self.effort, **self.packing
        ).for_layers(self.matrices)

    def schedule(self, layout: Layout) -> Schedule:
        return make_schedule(
            layout,
            self.uses,
            self.spec,
            arrays=self.arrays,
            batch=self.batch,
            objective=self.objective,
            effort=self.effort,
        )


def random_uses(rng: np.random.Generator, matrices: int) -> list[Use]:
    """A chain, a chain whose last matrices are read again, or any graph."""
    kind = rng.choice(["chain", "again", "graph"], p=[0.5, 0.2, 0.3])
    order = [*range(matrices)]
    if kind != "chain":
        order += rng.integers(0, matrices, rng.integers(0, 4)).tolist()
    uses = []
    for i, matrix in enumerate(order):
        waits = [j for j in range(i) if rng.random() < 0.3] if kind == "graph" else [i - 1] * (i > 0)
        vectors, slices = int(rng.integers(1, 9)), int(rng.integers(1, 4))
        uses.append(Use(matrix, matrix, vectors * slices, tuple(waits), vectors))
    return uses


def random_instance(index: int) -> Instance:
    rng = np.random.default_rng((index, 3))
    rows, columns = (int(n) for n in rng.integers(1, 10, 2))
    layers = [
        NamedShape(
            int(rng.choice([1, 1, 1, 2])),
            int(rng.integers(1, 2 * rows + 2)),
            int(rng.integers(1, 2 * columns + 2)),
            reads=1 + 9 * (i % 3),
            name=f"layer {i}",
        )
        for i in range(rng.integers(1, 5))
    ]
    write, read = ((18e-8, 9e-8), (1e-6, 1e-9), (0.0, 1e-7), (1e-7, 0.0), (0.0, 0.0))[
        rng.choice(5, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    ]
    spec = ArraySpec.uniform(
        rows,
        columns,
        None,
        "unbounded",
        t_write_row_s=write,
        t_read_s=read,
        e_write_row_j=1e-9,
        e_read_j=1e-10,
        writes_while_reading=bool(rng.random() < 0.7),
        writes_at_a_time=int(rng.choice([0, 0, 1, 2])),
    )
    cuts = str(rng.choice(["greedy", "balanced", "free"]))
    share = rng.choice([0, 0, 0, 1, 2, 3])
    packing: dict[str, object] = {
        "cuts": cuts,
        "in_order": bool(rng.random() < 0.4),
        "fixed_rows": cuts != "free" and bool(rng.random() < 0.3),
        "share_rows": not share & 1,
        "share_columns": not share & 2,
        "pack": cuts == "free" or bool(rng.random() < 0.9),
    }
    return Instance(
        layers,
        [*range(len(layers))],
        random_uses(rng, len(layers)),
        spec,
        packing,
        arrays=int(rng.choice([0, 1, 1, 2, 3, 5, 8, 20])),
        batch=int(rng.integers(1, 4)),
        objective=str(rng.choice(OBJECTIVES)),
        effort=1 / 64 if index % 100 == 0 else 0.0,
    )


def spread(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every table row i the numbers starts[i] .. starts[i] + lengths[i] - 1, and i beside each."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return starts[row] + within, row


def assert_layout(layout: Layout, instance: Instance) -> None:
    """Weights once each; places inside, apart and as the sharing rules say; cuts, order, bounds."""
    tiles = {name: layout.tiles[name].astype(np.int64) for name in layout.tiles.dtype.names}
    layer, image, row, column = tiles["layer"], tiles["image"], tiles["row"], tiles["column"]
    height, width = tiles["k1"] - tiles["k0"], tiles["m1"] - tiles["m0"]
    size = np.array([(s.groups, s.inputs, s.outputs) for s in instance.layers])
    groups, inputs, outputs = size[layer].T
    assert (np.minimum(height, width) > 0).all()
    assert (tiles["k0"] >= 0).all()
    assert (tiles["k1"] <= inputs).all()
    assert (tiles["m0"] >= 0).all()
    assert (tiles["m1"] <= outputs).all()
    assert (tiles["group"] >= 0).all()
    assert (tiles["group"] < groups).all()
    assert (row >= 0).all()
    assert (row + height <= layout.rows).all()
    assert (column >= 0).all()
    assert (column + width <= layout.columns).all()
    assert set(image.tolist()) == set(range(layout.images))
    within, tile = spread(np.zeros_like(height), height * width)
    down, right = within // width[tile], within % width[tile]
    first = np.cumsum(size.prod(axis=1)) - size.prod(axis=1)
    weight = (tiles["group"][tile] * inputs[tile] + tiles["k0"][tile] + down) * outputs[tile]
    weight += first[layer[tile]] + tiles["m0"][tile] + right
    assert np.array_equal(np.sort(weight), np.arange(size.prod(axis=1).sum())), "each weight is in one tile"
    cell = (image[tile] * layout.rows + row[tile] + down) * layout.columns + column[tile] + right
    assert np.bincount(cell).max() == 1, "tiles overlap"
    if not instance.packing["share_rows"]:
        rows, tile = spread(row, height)
        assert np.bincount(image[tile] * layout.rows + rows).max() == 1, "tiles share rows"
    if not instance.packing["share_columns"]:
        columns, tile = spread(column, width)
        assert np.bincount(image[tile] * layout.columns + columns).max() == 1, "tiles share columns"
    if instance.packing["in_order"]:
        lowest, highest = np.full(layout.images, len(instance.layers)), np.full(layout.images, -1)
        np.minimum.at(lowest, image, layer)
        np.maximum.at(highest, image, layer)
        assert (highest[:-1] <= lowest[1:]).all(), "images do not follow the order of execution"
    assert_cuts(layout, instance, height, width)
    area = -(-int(size.prod(axis=1).sum()) // (layout.rows * layout.columns))
    assert layout.area_lower_bound == area
    assert area <= layout.images_lower_bound <= layout.images <= len(layout.tiles)
    optimal = layout.images == layout.images_lower_bound
    wanted = ("optimal" if optimal else "feasible") if instance.packing["pack"] else "unpacked"
    assert layout.packing_status == wanted


def assert_cuts(layout: Layout, instance: Instance, height: np.ndarray, width: np.ndarray) -> None:
    """Greedy cuts lie at multiples of the array's size; balanced blocks are as few, and differ by one at most."""
    cuts = instance.packing["cuts"]
    if cuts == "free":
        return
    size = np.array([(s.inputs, s.outputs) for s in instance.layers])[layout.tiles["layer"]]
    limits = (layout.rows, layout.columns)
    for axis, (start, length) in enumerate((("k0", height), ("m0", width))):
        limit, whole, at = limits[axis], size[:, axis], layout.tiles[start]
        if cuts == "greedy":
            assert (at % limit == 0).all()
            assert (length == np.minimum(limit, whole - at)).all()
        else:
            blocks = -(-whole // limit)
            assert ((length == whole // blocks) | (length == -(-whole // blocks))).all()
    blocks_of = [s.groups * -(-s.inputs // limits[0]) * -(-s.outputs // limits[1]) for s in instance.layers]
    assert len(layout.tiles) == sum(blocks_of)
    if instance.packing["fixed_rows"]:
        apart = replace(instance, packing={**instance.packing, "pack": False}).layout()
        assert np.array_equal(apart.tiles["row"], layout.tiles["row"]), "packing moved rows"


def assert_schedule(schedule: Schedule, layout: Layout, instance: Instance) -> None:
    """The compiler's own checks, and a replay that shares nothing with them."""
    assert check_schedule(schedule, instance, instance.spec) == []
    images, spec = layout.images, instance.spec
    assert schedule.images == images
    assert schedule.arrays <= (instance.arrays or images)
    assert np.array_equal(schedule.tiles, layout.tiles)
    assert_shares(schedule, instance)
    replay(schedule, instance)
    assert schedule.period_s <= schedule.makespan_s * (1 + 1e-9)
    if schedule.stationary:
        assert schedule.period_s * (1 + 1e-9) >= busiest_s(schedule)
    in_a_row = all(use.waits_for == ((i - 1,) if i else ()) for i, use in enumerate(instance.uses))
    once = len(instance.uses) == len(instance.layers)
    if instance.packing["in_order"] and in_a_row and once and instance.arrays == 1:
        assert schedule.weight_updates == images, "an array that takes images in order of execution writes each once"
    assert schedule.weight_updates_lower_bound >= (1 if images > schedule.arrays else images)
    assert (spec.rows, spec.columns) == (schedule.rows, schedule.columns)


def busiest_s(schedule: Schedule) -> float:
    """Time of the steps of the busiest array."""
    steps = schedule.steps
    return float(np.bincount(steps["array"], weights=steps["end_s"] - steps["start_s"]).max())


def assert_shares(schedule: Schedule, instance: Instance) -> None:
    """The copies of a tile make all reads of a use, once each."""
    reads = schedule.steps[schedule.steps["operation"] == READ]
    made: dict[tuple[int, int], int] = {}
    for step in reads[:: max(1, len(reads) // 8)] if len(schedule.copies) == schedule.images else reads:
        key = (int(step["use"]), int(step["tile"]))
        made[key] = made.get(key, 0) + schedule.reads_of(step, instance.uses[key[0]])
    assert all(count == instance.uses[use].reads * schedule.batch for (use, _), count in made.items())


def replay(schedule: Schedule, instance: Instance) -> None:
    """Step after step: arrays free and holding what is read, uses in order, rules of writing, and the state at the end."""
    spec = instance.spec
    tolerance = 1e-9 * schedule.makespan_s
    free, held = [0.0] * schedule.arrays, schedule.initial.tolist()
    left = [0] * len(instance.uses)
    copies = np.bincount(schedule.copies["image"], minlength=schedule.images)[schedule.tiles["image"]]
    for i, use in enumerate(instance.uses):
        left[i] = int(copies[schedule.tiles["layer"] == use.matrix].sum())
    ends = [0.0] * len(instance.uses)
    writes_end: list[float] = []
    reads_end = 0.0
    for operation, array, image, _, use, _, start, end in schedule.steps.tolist():
        assert start >= free[array] - tolerance
        free[array] = end
        lasts = end > start + tolerance
        if operation == WRITE:
            held[array] = image
            if lasts and not spec.writes_while_reading:
                assert start >= reads_end - tolerance
            writes_end = [t for t in writes_end if t > start + tolerance] + [end] * lasts
            assert not spec.writes_at_a_time or len(writes_end) <= spec.writes_at_a_time
            continue
        assert held[array] == image
        for before in instance.uses[use].waits_for:
            assert not left[before]
            assert start >= ends[before] - tolerance
        if lasts and not spec.writes_while_reading:
            assert not [t for t in writes_end if t > start + tolerance]
        left[use] -= 1
        ends[use], reads_end = max(ends[use], end), max(reads_end, end)
    assert not any(left)
    for start, now in zip(schedule.initial.tolist(), held, strict=True):
        assert start in (-1, now)


@pytest.mark.parametrize("start", range(0, INSTANCES, CHUNK))
def test_every_layout_and_schedule(start):
    """A schedule for every fourth layout: it takes longer."""
    for index in range(start, start + CHUNK):
        instance = random_instance(index)
        try:
            layout = instance.layout()
            assert_layout(layout, instance)
            if index % 4 == 0:
                assert_schedule(instance.schedule(layout), layout, instance)
        except AssertionError as error:
            raise AssertionError(f"instance {index}: {instance}") from error


def test_shares_partition_the_vectors():
    """Contiguous, all vectors once, as equal as can be, the first the largest."""
    for copies in range(1, 12):
        for vectors in range(40):
            parts = [share_of(copy, copies, vectors) for copy in range(copies)]
            assert [v for first, end in parts for v in range(first, end)] == list(range(vectors))
            lengths = [end - first for first, end in parts]
            assert max(lengths) - min(lengths) <= 1
            assert lengths[0] == max(lengths)


def example(shapes: list[tuple[int, int]], size: tuple[int, int], arrays: int, **packing: object) -> Instance:
    """Matrices read one after the other on an array of two cycles per write of a row and one per read."""
    options: dict[str, object] = {"cuts": "greedy", "in_order": False, "fixed_rows": False, "pack": True}
    options.update({"share_rows": True, "share_columns": True, **packing})
    spec = ArraySpec.uniform(
        *size, None, "unbounded", t_write_row_s=2e-8, t_read_s=1e-8, e_write_row_j=1e-9, e_read_j=1e-9
    )
    layers = [NamedShape(1, *shape, name=f"layer {i}") for i, shape in enumerate(shapes)]
    uses = [Use(i, i, 6, (i - 1,) if i else (), 6) for i in range(len(shapes))]
    return Instance(layers, [*range(len(shapes))], uses, spec, options, arrays, 1, "latency", 0.0)


SMALL = [(6, 4), (3, 3), (2, 2)]
WHOLE = slice(None)


@pytest.mark.parametrize(
    ("field", "rows", "value"),
    [
        ("k0", 1, 3),  # a weight in two tiles
        ("k1", 1, 5),  # a weight in none
        ("k1", 1, 7),  # outside its matrix
        ("group", 0, 1),
        ("row", 0, 1),  # outside the array
        ("column", 0, 2),
        ("image", WHOLE, 3),  # images that hold nothing
        ("image", WHOLE, 0),  # tiles on each other
    ],
)
def test_broken_layouts_are_found(field, rows, value):
    instance = example(SMALL, (4, 5), 1)
    layout = instance.layout()
    assert_layout(layout, instance)
    tiles = layout.tiles.copy()
    tiles[field][rows] = value
    with pytest.raises(AssertionError):
        assert_layout(replace(layout, tiles=tiles), instance)


@pytest.mark.parametrize("name", ["area_lower_bound", "images_lower_bound", "packing_status"])
def test_wrong_statements_of_layouts_are_found(name):
    instance = example(SMALL, (4, 5), 1)
    layout = instance.layout()
    for value in ["feasible", "unpacked"] if name == "packing_status" else [layout.images + 1, 0]:
        with pytest.raises(AssertionError):
            assert_layout(replace(layout, **{name: value}), instance)


@pytest.mark.parametrize(
    ("shapes", "broken"),
    [
        ([(2, 2), (2, 2)], {"share_rows": False, "share_columns": False}),
        ([(2, 4), (2, 4)], {"share_columns": False}),
        ([(4, 2), (4, 2)], {"share_rows": False}),
        ([(4, 2), (4, 4), (4, 2)], {"in_order": True}),  # the first and the last share an image
        ([(6, 6)], {"cuts": "balanced"}),
    ],
)
def test_broken_rules_of_packing_are_found(shapes, broken):
    """A layout made without a rule, looked at as if it had been made with it."""
    instance = example(shapes, (4, 4), 1)
    layout = instance.layout()
    assert_layout(layout, instance)
    with pytest.raises(AssertionError):
        assert_layout(layout, replace(instance, packing={**instance.packing, **broken}))


def test_moved_rows_are_found():
    instance = example([(4, 2), (2, 2)], (4, 4), 1, fixed_rows=True)
    layout = instance.layout()
    assert_layout(layout, instance)
    tiles = layout.tiles.copy()
    tiles["row"][1] = 2
    with pytest.raises(AssertionError):
        assert_layout(replace(layout, tiles=tiles), instance)


CHAIN = [(4, 4)] * 4  # each fills an array of 4 x 4
BROKEN_SCHEDULES: dict[str, Callable[[Schedule], dict[str, object]]] = {
    "a write missing": lambda s: {"steps": np.delete(s.steps, np.flatnonzero(s.steps["operation"] == WRITE)[-1])},
    "a read missing": lambda s: {"steps": np.delete(s.steps, np.flatnonzero(s.steps["operation"] == READ)[-1])},
    "a read twice": lambda s: {"steps": np.append(s.steps, s.steps[s.steps["operation"] == READ][-1:])},
    "an array twice at a time": lambda s: {"steps": changed(s.steps, -1, "start_s", s.steps["start_s"][0])},
    "a read of another image": lambda s: {"steps": changed(s.steps, s.steps["operation"] == READ, "image", 0)},
    "another start than end": lambda s: {"initial": (s.initial + 1) % s.images},
    "an array too many": lambda s: {"arrays": s.arrays + 1},
    "an image without copy": lambda s: {"copies": s.copies[1:]},
    "a bound of the makespan": lambda s: {"makespan_lower_bound_s": s.makespan_s * 1.01},
    "a bound of the period": lambda s: {"period_lower_bound_s": s.period_s * 1.01},
    "a bound of the writes": lambda s: {"weight_updates_lower_bound": s.weight_updates + 1},
    "no bound of the writes": lambda s: {"weight_updates_lower_bound": 0},
    "a short period": lambda s: {"period_s": s.period_s * 0.4},
    "a long period": lambda s: {"period_s": s.makespan_s * 1.1},
    "batches": lambda s: {"batch": s.batch + 1},
}


def changed(table: np.ndarray, rows: Any, field: str, value: Any) -> np.ndarray:
    """A copy of the table with one field of some rows set."""
    table = table.copy()
    table[field][rows] = value
    return table


@pytest.mark.parametrize(
    ("what", "arrays"),
    [(what, arrays) for what in BROKEN_SCHEDULES for arrays in (2, 5) if (what, arrays) != ("a write missing", 5)],
)
def test_broken_schedules_are_found(what, arrays):
    """With two arrays images take turns; with five they stay, and there is no write to leave out."""
    instance = example(CHAIN, (4, 4), arrays)
    layout = instance.layout()
    schedule = instance.schedule(layout)
    assert_schedule(schedule, layout, instance)
    broken = replace(schedule, **BROKEN_SCHEDULES[what](schedule))
    with pytest.raises(AssertionError):
        assert_schedule(broken, layout, instance)


@pytest.mark.parametrize("what", list(BROKEN_SCHEDULES)[:6])
def test_the_replay_alone_finds_broken_steps(what):
    instance = example(CHAIN, (4, 4), 2)
    schedule = instance.schedule(instance.layout())
    replay(schedule, instance)
    with pytest.raises(AssertionError):
        replay(replace(schedule, **BROKEN_SCHEDULES[what](schedule)), instance)


@pytest.mark.parametrize("rule", [{"writes_while_reading": False}, {"writes_at_a_time": 1}])
def test_broken_rules_of_writing_are_found(rule):
    """A schedule made without a rule, looked at as if the target had it; by both checks."""
    instance = example(CHAIN, (4, 4), 2)
    layout = instance.layout()
    schedule = instance.schedule(layout)
    strict = replace(instance, spec=replace(instance.spec, **rule))
    for check in (lambda: assert_schedule(schedule, layout, strict), lambda: replay(schedule, strict)):
        with pytest.raises(AssertionError):
            check()


def test_order_of_uses_is_checked():
    instance = example(CHAIN, (4, 4), 4)
    schedule = instance.schedule(instance.layout())
    uses = [replace(use, waits_for=()) for use in instance.uses]
    uses[0] = replace(uses[0], waits_for=(3,))
    with pytest.raises(AssertionError):
        replay(schedule, replace(instance, uses=uses))


def test_wrong_shares_are_found():
    """Copies of a schedule for three arrays, with one of them forgotten: reads are missing."""
    instance = example([(4, 4)], (4, 4), 3)
    schedule = instance.schedule(instance.layout())
    assert len(schedule.copies) == 3
    assert_shares(schedule, instance)
    with pytest.raises(AssertionError):
        assert_shares(replace(schedule, copies=schedule.copies[:2]), instance)
