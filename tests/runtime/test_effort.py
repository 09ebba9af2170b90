"""What a run asks of a device, and the memory that it takes, in counts: no time is measured."""

from __future__ import annotations

import tracemalloc
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import onnx
import pytest

import xbcompile
from benchmarks.networks import NetworkBuilder, convolution, dense
from benchmarks.work import MODELS, TARGETS
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.layer_executor import OBSERVED_READINGS, PART_BYTES, PART_VECTORS
from xbcompile.targets import BatchedDevice, LoadedImages, Read, ReadBlock, Write, WrittenImages
from xbcompile.targets.loaded_images import LoadedTiles
from xbcompile.targets.tile_routing import TileRouting

CONTINUOUS = str(TARGETS / "continuous64.toml")
THREADS = 2
SAMPLES = 600  # more than are simulated together, in two calls of the model


class CountingDevice:
    """A chip that counts what it is asked for.

    Attributes:
        prepared: tiles that were made ready to add readings up.
        calls: times that some tiles were asked to add readings.
        added: tiles times vectors of these calls.
        seen: tiles times vectors that were read for somebody to look at.
    """

    def __init__(self, chip: BatchedDevice) -> None:
        self.chip = chip
        self.prepared = self.calls = self.added = self.seen = 0
        self.lock = Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chip, name)

    def write(self, event: Write, cells: np.ndarray) -> None:
        raise AssertionError("events are taken together")

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        raise AssertionError("events are taken together")

    def load(self, written: WrittenImages) -> LoadedImages:
        return CountingImages(self, self.chip.load(written))


class CountingImages(LoadedImages):
    def __init__(self, device: CountingDevice, images: LoadedImages) -> None:
        self.device, self.images = device, images

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        with self.device.lock:
            self.device.seen += drives.shape[0] * drives.shape[1]
        return self.images.read(drives, reads)

    def tiles(self, routing: TileRouting) -> LoadedTiles:
        with self.device.lock:
            self.device.prepared += routing.tiles
        return CountingTiles(self, self.images.tiles(routing))


class CountingTiles(LoadedTiles):
    def __init__(self, images: CountingImages, tiles: LoadedTiles) -> None:
        super().__init__(images, tiles.routing)
        self.device, self.inner = images.device, tiles

    def add(self, values: np.ndarray, reads: ReadBlock, sums: np.ndarray) -> None:
        with self.device.lock:
            self.device.calls += 1
            self.device.added += self.routing.tiles * values.shape[1]
        self.inner.add(values, reads, sums)


def residual() -> onnx.ModelProto:
    """A block of a residual network and a classifier."""
    build = NetworkBuilder((8, 8, 8))
    inner = build.node("Relu", build.convolution("input", 8, 16, 3))
    shortcut = build.convolution("input", 8, 16, 1)
    x = build.node("Relu", build.node("Add", build.convolution(inner, 16, 16, 3), shortcut))
    return build.model(build.gemm(build.node("Flatten", build.node("GlobalAveragePool", x)), 16, 10))


# What `make bench` times, small.
PROGRAMS = {
    "binary slices": (lambda: onnx.load(MODELS / "mnist_bnn.onnx"), "mram64"),
    "ternary convolutions": (lambda: onnx.load(MODELS / "mnist_lenet5_ternary.onnx"), "sot"),
    "residual block": (residual, CONTINUOUS),
    "large matrix": (lambda: dense(320, 320), CONTINUOUS),
    "depthwise": (lambda: convolution(24, 24, 6, groups=24), "sot"),
}


@cache
def compiled(name: str) -> Program:
    model, target = PROGRAMS[name]
    return xbcompile.compile(model(), target, arrays=0, cuts="greedy", packing="none")


def inputs_of(program: Program, samples: int) -> dict[str, np.ndarray]:
    (each,) = program.network.inputs
    shape = [axis.dim_value for axis in each.type.tensor_type.shape.dim[1:]]
    return {each.name: np.random.default_rng(0).random((samples, *shape), dtype=np.float32)}


def tile_vectors(program: Program) -> list[tuple[int, int]]:
    """Of each layer, its tiles, and the vectors that one sample sends through each."""
    owners = program.network.matrices
    return [
        (len(program.schedule.tiles_of(owner)), layer.vectors_per_inference)
        for owner, layer in zip(owners, program.network.layers, strict=True)
    ]


@cache
def counted(name: str) -> tuple[CountingDevice, Session]:
    """A session that has run twice, and what it asked of its chip."""
    program = compiled(name)
    device = CountingDevice(program.target.device())
    session = Session(program, device, threads=THREADS)
    for _ in range(2):
        session.run_samples(inputs_of(program, SAMPLES))
    return device, session


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_tile_is_prepared_once_and_sees_every_vector_once(name: str) -> None:
    """Whatever the number of runs, of calls of the model and of parts; calls of a kernel are few: parts hold many vectors."""
    program = compiled(name)
    device, session = counted(name)
    assert device.prepared == len(program.schedule.tiles)
    assert device.added == 2 * SAMPLES * sum(tiles * vectors for tiles, vectors in tile_vectors(program))
    calls_of_model = 2 * 2
    least_calls = [calls_of_model + 2 * SAMPLES * vectors / PART_VECTORS for _, vectors in tile_vectors(program)]
    blocks = [len(executor.tiles.blocks) for executor in session.executors]
    assert device.calls <= sum(number * calls for number, calls in zip(blocks, least_calls, strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_few_readings_are_looked_at_whatever_the_number_of_samples(name: str) -> None:
    """At most OBSERVED_READINGS of each layer in a run, or one vector of it."""
    program = compiled(name)
    device, _ = counted(name)
    allowed = 0
    for owner, layer in zip(program.network.matrices, program.network.layers, strict=True):
        tiles = program.schedule.tiles[program.schedule.tiles_of(owner)]
        readings = layer.slices * int((tiles["m1"] - tiles["m0"]).sum())
        allowed += len(tiles) * max(1, OBSERVED_READINGS // readings)
    assert 0 < device.seen <= 2 * allowed


@pytest.mark.parametrize("target", ["sot", "mram64", CONTINUOUS])
def test_a_convolution_does_not_lay_out_its_vectors(target: str) -> None:
    """3x3 patches of 16 channels are 9 times the input; what is held is inputs and outputs, and a part for each thread."""
    model = convolution(16, 4, 32)
    program = xbcompile.compile(model, target, arrays=0, cuts="greedy", packing="none")
    feeds = inputs_of(program, 150)
    input_bytes, output_bytes = 150 * 16 * 32 * 32 * 4, 150 * 4 * 32 * 32 * 4
    session = Session(program, threads=THREADS)
    session.run_samples({name: x[:10] for name, x in feeds.items()})
    tracemalloc.start()
    session.run_samples(feeds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Inputs of the call, outputs in two layouts, and for each thread a part on its way: vectors, sums and as much again.
    assert peak <= input_bytes + 2 * output_bytes + THREADS * 2 * PART_BYTES < 9 * input_bytes / 2
