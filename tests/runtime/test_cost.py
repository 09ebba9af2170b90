"""Counters and cost, from a derivation: tiles, slices and the target's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

import xbcompile
from tests.support.model_kit import MODELS
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.ir.corrections import Effort
from xbcompile.program.program import Program
from xbcompile.runtime import Counters, Session, cost_of

BINARY = "quantize{scheme=binary},thermometer{bits=8 low=0 high=1}"
WRITE_J = 2 * 64 * 64 * 1.5 * 90e-6 / 11.1e6  # 99.6 nJ; published: below 110 nJ


@pytest.fixture(scope="module")
def perceptron() -> Program:
    """784-128-10 on mram64 without packing, one array: the workload of the paper."""
    return xbcompile.compile(MODELS / "mnist_bnn.onnx", "mram64", passes=BINARY, packing="none")


def counted(program: Program, samples: int) -> Counters:
    """Counters of a session that has run so many samples of two layers with one vector each."""
    counters, batches = Counters(), -(-samples // program.schedule.batch)
    counters.count_setup(program.schedule, program.spec)
    counters.count_writes(program.schedule, batches)
    counters.count_run(samples, batches, program.schedule)
    for layer in range(2):
        counters.count_reads(program, layer, samples)
    return counters


def test_dot_products_of_the_published_perceptron(perceptron: Program) -> None:
    """784 = 12 x 64 + 16 rows make 13 row tiles; 128 = 2 x 64 columns: 26 tiles of 64 used columns. 128 x 10 makes 2 of 10.
    Each is written once and read in 8 slices: 28 weight updates, 28 x 8 = 224 reads, (26 x 64 + 2 x 10) x 8 = 13,472
    dot products per inference, and 404,160,000 for three runs of 10,000 images ("404 million" in the paper)."""
    assert perceptron.schedule.weight_updates == 26 + 2
    session = Session(perceptron, "ideal")
    session.run_samples({"input": images(7, 784)})
    session.run_samples({"input": images(3, 784)}, chunk=2)
    counters = session.counters
    assert (counters.inferences, counters.batches) == (10, 10)
    assert (counters.reads, counters.dot_products) == (10 * 224, 10 * 13_472)
    assert counters.dot_products // 10 * 3 * 10_000 == 404_160_000
    cost = cost_of(perceptron, counters)
    assert (cost.weight_updates, cost.rows_written) == (10 * 28, 10 * 28 * 64)
    assert (cost.reads, cost.dot_products) == (2240, 134_720)


def test_energy_and_time_of_the_published_perceptron(perceptron: Program) -> None:
    """8,192 paths at 1.5 V and 90 uA for a cycle per array write, 347 uW for a cycle per read; 64 rows of two cycles
    per write. One array: nothing overlaps."""
    cost = cost_of(perceptron, counted(perceptron, 10))
    assert cost.energy_j == pytest.approx(10 * (28 * WRITE_J + 224 * 347e-6 / 11.1e6), rel=1e-9)
    assert cost.time_s == pytest.approx(10 * (28 * 64 * 2 + 224) / 11.1e6, rel=1e-9)


def test_a_batch_shares_its_weight_updates() -> None:
    """17 inferences in batches of 5 are 4 batches; each writes every image once and reads for 5 inferences."""
    program = xbcompile.compile(MODELS / "mnist_bnn.onnx", "mram64", passes=BINARY, packing="none", batch=5)
    counters = counted(program, 17)
    assert (counters.batches, counters.reads) == (4, 17 * 224)
    cost = cost_of(program, counters)
    assert cost.weight_updates == 4 * 28
    assert cost.energy_j == pytest.approx(4 * 28 * WRITE_J + 17 * 224 * 347e-6 / 11.1e6, rel=1e-9)
    assert cost.time_s == pytest.approx(4 * (28 * 128 + 5 * 224) / 11.1e6, rel=1e-9)


def test_stationary_weights_are_written_once() -> None:
    """28 arrays: 28 updates in all, written side by side before the first inference. Then the layers in turn: the tiles of
    one layer are read side by side, 8 cycles for each layer. While the second layer is read, the first one reads
    the next sample."""
    program = xbcompile.compile(MODELS / "mnist_bnn.onnx", "mram64", passes=BINARY, packing="none", arrays=0)
    cost = cost_of(program, counted(program, 9))
    assert cost.reads == 9 * 224
    assert (cost.weight_updates, cost.rows_written) == (28, 28 * 64)
    assert cost.energy_j == pytest.approx(28 * WRITE_J + 9 * 224 * 347e-6 / 11.1e6, rel=1e-9)
    assert cost.time_s == pytest.approx((128 + 16 + 8 * 8) / 11.1e6, rel=1e-9)


def test_a_convolution_counts_its_vectors_and_groups() -> None:
    """Two groups of 9 x 3 on m2tj4 (4 x 4): 3 row tiles each, 4 output pixels, one slice: 6 tiles x 4 = 24 reads, 3 columns
    each. 24 x 5: 6 row tiles of 4 + 1 columns: 12 reads, 6 x 5 dot products."""
    program = xbcompile.compile(convolution_model(), "m2tj4", passes="quantize,analogue{low=0 high=1}")
    session = Session(program, "ideal")
    session.run_samples({"x": images(5, 2, 4, 4)})
    counters = session.counters
    assert (counters.inferences, counters.reads) == (5, 5 * (24 + 12))
    assert counters.dot_products == 5 * (24 * 3 + 6 * 5)


def test_cost_on_m2tj4_from_its_numbers() -> None:
    """6272 + 96 operations for 784-128-10 are the published count: 196 x 32 and 32 x 3 tiles of 4 x 4, one read each."""
    program = xbcompile.compile(
        dense_model(784, 128, 10), "m2tj4", passes="quantize,analogue{low=0 high=1}", packing="none"
    )
    assert len(program.schedule.tiles) == 196 * 32 + 32 * 3 == 6368
    counters = Counters()
    for layer in range(2):
        counters.count_reads(program, layer, 1)
    assert counters.reads == 6368
    assert counters.dot_products == 196 * 128 + 32 * 10
    cost = cost_of(program, counted(program, 1))
    middle_ohm = (9402.4622 + 9918.9859) / 2
    read_j = 16 * 0.5e-3**2 * middle_ohm * 1e-6
    assert cost.energy_j == pytest.approx(6368 * (4 * 1e-9 + read_j), rel=1e-9)
    assert cost.time_s == pytest.approx(6368 * (4 + 1) * 1e-6, rel=1e-6)


def test_commissioning_does_not_count() -> None:
    passes = "quantize{scheme=binary},thermometer{bits=8},recalibrate{samples=5}"
    program = xbcompile.compile(dense_model(20, 4), "mram64", passes=passes, calibration={"x": images(5, 20)})
    session = Session(program)
    assert session.counters == Counters()
    session.run_samples({"x": np.zeros((2, 20), np.float32)})
    counters = session.counters
    assert (counters.inferences, counters.reads, counters.dot_products) == (2, 2 * 8, 2 * 8 * 4)
    assert (counters.weight_updates, counters.rows_written) == (1, 64)
    assert session.corrections.effort == Effort(weight_updates=1, rows_written=64, reads=5 * 8)
