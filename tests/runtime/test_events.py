"""The schedule is what runs: a device that records sees the events of the tables, and many events together give the same bits.

The reference is a literal reading of the tables: batch after batch, step after step, in plain loops of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import MODELS
from xbcompile.ir.schedule import WRITE, share_of, tile_columns
from xbcompile.program.program import Program
from xbcompile.report.summary import summarize
from xbcompile.runtime import Session, commission, cost_of
from xbcompile.targets import Device, Read, Write, load_target

# Each shipped network on a target that it is for; small efforts, as it is the tables' execution that is tested here.
NETWORKS = {
    "digits_mlp": "m2tj4",
    "fashion_bnn": "sot-single",
    "letters_mlp": "memristor20",
    "mnist_bnn": "mram64",
    "mnist_bnn_live": "mram64",
    "mnist_bnn_plain": "mram64",
    "mnist_bnn_spare": "mram64",
    "mnist_lenet5": "sot",
    "mnist_lenet5_int8": "ideal",
    "mnist_lenet5_ternary": "sot",
    "mnist_lstm": "mram64",
    "mnist_mlp": "mram64",
    "mnist_mlp_pca87": "mram64",
    "mnist_tanh": "sot",
    "mnist_tanh32": "sot",
    "mnist_vgg8": "mram64",
    "scenes_detector": "mram64",
    "xor": "m2tj4",
}


class Recorder:
    """Any device, event by event; what it saw is kept. Without a device it reads zeros."""

    def __init__(self, columns: int, device: Device | None = None) -> None:
        self.device, self.zeros = device, np.zeros(columns)
        self.lsb = None if device is None else device.lsb
        self.reading_limits = None if device is None else device.reading_limits
        self.events: list[Write | Read] = []

    def write(self, event: Write, cells: np.ndarray) -> None:
        self.events.append(event)
        if self.device is not None:
            self.device.write(event, cells)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        self.events.append(event)
        return self.zeros if self.device is None else self.device.read(event, drive)

    @property
    def writes(self) -> list[Write]:
        return [event for event in self.events if isinstance(event, Write)]

    @property
    def reads(self) -> list[Read]:
        return [event for event in self.events if isinstance(event, Read)]


@cache
def compiled(name: str, target: str, arrays: int, batch: int, **options) -> Program:
    return xbcompile.compile(MODELS / f"{name}.onnx", target, arrays=arrays, batch=batch, effort=0, **options)


def random_feeds(program: Program, samples: int) -> dict[str, np.ndarray]:
    rng, feeds = np.random.default_rng(samples), {}
    for value in program.network.inputs:
        shape = [d.dim_value if d.HasField("dim_value") else samples for d in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = rng.random([samples, *shape[1:]]).astype(dtype)
    return feeds


def expected_events(program: Program, samples: int) -> tuple[list[tuple], list[tuple]]:
    """Writes (array, image, rows, number) and reads (array, write, tile, use, vector in its use, slice), as plain loops read them
    off the tables.
    """
    schedule, network = program.schedule, program.network
    writes, reads = [], []
    count, held = dict.fromkeys(range(schedule.arrays), 0), {}

    def write(array: int, image: int, rows: int) -> None:
        writes.append((array, image, rows, count[array]))
        held[array] = image
        count[array] += 1

    for array, image in enumerate(schedule.initial.tolist()):
        if image >= 0:
            write(array, image, program.spec.rows)
    for first in range(0, samples, schedule.batch):
        size = min(schedule.batch, samples - first)
        for step in schedule.steps:
            array, image = int(step["array"]), int(step["image"])
            if step["operation"] == WRITE:
                write(array, image, int(step["rows"]))
                continue
            assert held[array] == image
            use = network.uses[step["use"]]
            copies = schedule.copies["array"][schedule.copies["image"] == image].tolist()
            start, end = share_of(copies.index(array), len(copies), schedule.batch * use.vectors)
            slices = use.reads // use.vectors
            for vector in range(start, min(end, size * use.vectors)):
                which = (array, count[array] - 1, int(step["tile"]), int(step["use"]), first * use.vectors + vector)
                reads.extend((*which, t) for t in range(slices))
    return writes, reads


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("arrays", [1, 2, 4, 0])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_recording_device_sees_the_tables_events_and_all_counters_agree(name: str, arrays: int, batch: int) -> None:
    program = compiled(name, NETWORKS[name], arrays, batch)
    heavy = sum(use.reads for use in program.network.uses) > 10_000  # one inference takes seconds, event by event
    samples = {1: 1, 7: 2, 100: 1}[batch] if heavy else {1: 2, 7: 9, 100: 3}[batch]
    recorder = Recorder(program.spec.columns)
    session = Session(program, recorder)
    session.run_samples(random_feeds(program, samples))
    writes, reads = expected_events(program, samples)
    assert sorted((e.array, e.image, len(e.rows), e.number) for e in recorder.writes) == sorted(writes)
    low = (1 << 28) - 1  # below what keeps uses and steps apart in `vector`
    found = sorted((e.array, e.write, e.tile, e.use, e.vector & low, e.slice) for e in recorder.reads)
    assert found == sorted(reads)
    times = [event.at_s for event in recorder.events]
    assert times == sorted(times)

    together = Session(program, "ideal")
    together.run_samples(random_feeds(program, samples))
    assert together.counters == session.counters
    batches = -(-samples // batch)
    total = summarize(program)["totals"]
    updates = 0 if program.schedule.stationary else total["weight_updates"]
    cost = cost_of(program, session.counters)
    assert cost.weight_updates == len(recorder.writes) == total["initial_writes"] + batches * updates
    assert cost.rows_written == sum(len(event.rows) for event in recorder.writes)
    assert cost.reads == len(recorder.reads) == samples * total["reads_per_inference"]
    columns = tile_columns(program.schedule.tiles)
    assert cost.dot_products == sum(int(columns[event.tile]) for event in recorder.reads)
    assert cost.inferences == samples
    assert cost.energy_j == pytest.approx(
        cost.rows_written * program.spec.e_write_row_j + samples * total["e_read_per_inference_j"]
    )
    end_s = program.schedule.setup_s + (batches - 1) * total["period_s"] + total["makespan_s"]
    assert cost.time_s == pytest.approx(end_s)
    assert max(times, default=0.0) <= end_s * (1 + 1e-9)


def noisy(target: str) -> xbcompile.Target:
    """The target with errors that writes draw anew, where its family has any."""
    chosen = load_target(target)
    if "write_noise" in chosen.quantities:
        return chosen.with_quantities("test", write_noise=0.2)
    return chosen


CASES = [
    ("digits_mlp", "sot", {"arrays": 1, "batch": 1}),
    ("digits_mlp", "sot", {"arrays": 1, "batch": 3, "rewrite": "matched"}),
    ("digits_mlp", "sot", {"arrays": 5, "batch": 4}),
    ("digits_mlp", "sot-single", {"arrays": 1, "batch": 2, "rewrite": "changed"}),
    ("digits_mlp", "memristor20", {"arrays": 1, "batch": 1}),
    ("digits_mlp", "memristor20", {"arrays": 3, "batch": 3}),
    ("digits_mlp", "memristor20", {"arrays": 0, "batch": 2}),
    ("digits_mlp", "m2tj4", {"arrays": 4, "batch": 3}),
    ("digits_mlp", "mram64", {"arrays": 1, "batch": 2}),
    ("digits_mlp", "multicell", {"arrays": 0, "batch": 2}),
    ("mnist_lstm", "sot", {"arrays": 2, "batch": 1}),
    ("mnist_lstm", "mram64", {"arrays": 0, "batch": 2}),
]


@pytest.mark.parametrize(("name", "target", "options"), CASES)
def test_many_events_together_equal_one_after_another(name: str, target: str, options: dict) -> None:
    """Bit for bit: corrections, and outputs of several runs of one session; chunks are batches, so that digital segments see
    tensors of the same sizes.
    """
    if name == "digits_mlp" and options.get("rewrite"):
        options = {**options, "passes": None}
    base = noisy(target)
    program = xbcompile.compile(MODELS / f"{name}.onnx", base, effort=0, **options)
    feeds = random_feeds(program, 7)
    together = Session(program, None, 3)
    chip = Recorder(program.spec.columns, base.device(None, 3))
    literal = Session(program, chip)
    for _ in range(2):
        many = together.run_samples(feeds, chunk=options["batch"])
        one = literal.run_samples(feeds)
        for output in many:
            assert np.array_equal(many[output], one[output])
    assert together.counters == literal.counters


@pytest.mark.parametrize("starts", [(6,), (0, 12, 0, 4)])
@pytest.mark.parametrize("rewrite", ["changed", "matched"])
def test_runs_that_go_elsewhere_in_a_sessions_life(rewrite: str, starts: tuple[int, ...]) -> None:
    """The array carries an image from batch to batch, its rows of several writes: before a batch that does not follow the last
    one it is written as that batch would find it.
    """
    base = noisy("sot").with_quantities("test", rows=16, columns=16)
    program = xbcompile.compile(MODELS / "digits_mlp.onnx", base, effort=0, arrays=1, batch=2, rewrite=rewrite)
    assert program.schedule.initial[0] >= 0
    assert len(program.schedule.writes) > 1
    feeds = random_feeds(program, 3)
    together, literal = Session(program, None, 3), Session(program, Recorder(16, base.device(None, 3)))
    outputs = {}
    for start in starts:
        many, one = (each.run_samples(feeds, chunk=2, first_sample=start)["logits"] for each in (together, literal))
        assert np.array_equal(many, one)
        assert np.array_equal(outputs.setdefault(start, many), many)
    assert together.counters == literal.counters


@pytest.mark.parametrize("target", ["sot", "memristor20", "mram64", "m2tj4"])
def test_commissioning_one_by_one_equals_many_together(target: str) -> None:
    base = noisy(target)
    program = xbcompile.compile(
        MODELS / "digits_mlp.onnx", base, calibration="digits:train:40", arrays=1, batch=8, effort=0
    )
    many = commission(program, None, 2)
    chip = Recorder(program.spec.columns, base.device(None, 2))
    one = commission(program, chip)
    assert replace(one, chip=many.chip, effort=many.effort) == many
    assert one.effort.reads == len(chip.reads)
    assert one.effort.weight_updates == len(chip.writes)
    assert many.effort.reads == one.effort.reads


def test_a_write_draws_anew_and_a_read_of_the_same_write_does_not() -> None:
    """Writing A, B, A again into one array gives other cells each time; two tiles of one image read the same cells."""
    target = noisy("sot")
    spec, chip = target.array_spec, target.device(None, 1)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(spec.levels), (2, spec.rows, spec.columns)).astype(np.uint8)
    drive, every = np.ones(spec.rows, np.float32), np.arange(spec.rows)
    readings = []
    for number, cells in enumerate((a, b, a)):
        chip.write(Write(0, number % 2, every, number, 0.0), cells)
        readings.append(chip.read(Read(0, number, 0, 0, 0, 0, 0.0), drive))
    again = target.device(None, 1)
    again.write(Write(0, 0, every, 2, 5.0), a)
    np.testing.assert_array_equal(again.read(Read(0, 2, 0, 0, 0, 0, 9.0), drive), readings[2])
    assert not np.array_equal(readings[0], readings[2])
    quiet = target.with_quantities("test", read_noise=0.0).device(None, 1)
    quiet.write(Write(0, 0, every, 0, 0.0), a)
    first, second = (quiet.read(Read(0, 0, tile, 0, 0, 0, 0.0), drive) for tile in (3, 8))
    np.testing.assert_array_equal(first, second)


def test_rows_that_a_write_leaves_out_keep_what_they_hold() -> None:
    target = noisy("sot").with_quantities("test", read_noise=0.0)
    spec = target.array_spec
    cells = np.zeros((spec.rows, spec.columns), np.uint8)
    changed = cells.copy()
    changed[:2] = 1
    chip, whole = target.device(None, 1), target.device(None, 1)
    every = np.arange(spec.rows)
    chip.write(Write(0, 0, every, 0, 0.0), cells)
    chip.write(Write(0, 1, np.arange(2), 1, 1.0), changed)
    whole.write(Write(0, 0, every, 0, 0.0), changed)
    for row in range(spec.rows):
        drive = np.zeros(spec.rows, np.float32)
        drive[row] = 1
        same = np.array_equal(*(each.read(Read(0, 0, 0, 0, 0, 0, 0.0), drive) for each in (chip, whole)))
        assert same == (row >= 2)


def test_every_shipped_network_is_tested() -> None:
    """Those of the papers' recipes hold other numbers in the graphs of networks that are."""
    names = {path.stem for path in MODELS.glob("*.onnx")}
    again = {name for name in names if "_paper" in name}
    assert set(NETWORKS) == names - again

    def graph(name: str) -> list[tuple[str, list[int]]]:
        model = onnx.load(MODELS / f"{name}.onnx").graph
        return [(node.op_type, [len(node.input), len(node.output)]) for node in model.node]

    tested = [graph(name) for name in NETWORKS]
    assert all(graph(name) in tested for name in again)


def test_a_recycled_array_is_drawn_anew_in_every_batch_and_a_stationary_one_once() -> None:
    target = noisy("sot").with_quantities("test", read_noise=0.0)
    for arrays, draws in ((1, True), (0, False)):
        program = xbcompile.compile(MODELS / "mnist_lenet5.onnx", target, arrays=arrays, batch=1, effort=0)
        feeds = {name: np.repeat(x[:1], 3, axis=0) for name, x in random_feeds(program, 1).items()}
        (output,) = Session(program).run_samples(feeds).values()
        assert (len(np.unique(output, axis=0)) == 3) == draws
        assert (len(np.unique(output, axis=0)) == 1) != draws


def test_a_session_counts_on_and_a_first_sample_gives_its_place_again() -> None:
    program = xbcompile.compile(MODELS / "digits_mlp.onnx", "mram64", arrays=1, batch=2, effort=0)
    feeds = random_feeds(program, 4)
    session = Session(program, seed=5)
    first, second = (session.run_samples(feeds)["logits"] for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(session.run_samples(feeds, first_sample=0)["logits"], first)
    np.testing.assert_array_equal(Session(program, seed=5).run_samples(feeds, first_sample=4)["logits"], second)
    one_by_one = [session.run({n: x[i : i + 2] for n, x in feeds.items()}, first_sample=i)["logits"] for i in (0, 2)]
    np.testing.assert_allclose(np.concatenate(one_by_one), first, rtol=1e-6)
    with pytest.raises(xbcompile.XbcompileError, match="first_sample=1 is inside of a batch; give a multiple of 2"):
        session.run_samples(feeds, first_sample=1)
