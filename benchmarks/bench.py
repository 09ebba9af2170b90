"""Timings on this machine: compiling, and running the MNIST test set through `mnist_bnn` on `mram64`.

The run is set against a straightforward numpy simulation of the same reads (one matrix product, one call of numpy's normal
generator and one rounding per tile), which is what one writes in an afternoon; both compute 143 million readings.

    python benchmarks/bench.py [--samples N]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import xbcompile
from xbcompile.data.datasets import load_data
from xbcompile.runtime import Session


def seconds(function, repeats: int = 3) -> float:
    """Best of a few calls."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def plain_numpy(program: xbcompile.Program, samples: int) -> None:
    """The same number of reads on random drives: sums, noise, conversion, sum over slices, tile by tile."""
    generator = np.random.default_rng(0)
    p = program.target.parameters
    for tile in range(len(program.schedule.tiles)):
        matrix = generator.standard_normal((p.rows, p.columns), dtype=np.float32)
        layer = program.network.layers[program.schedule.tiles["layer"][tile]]
        drives = np.where(generator.random((samples * layer.slices, p.rows), dtype=np.float32) < 0.5, -1, 1)
        sums = drives.astype(np.float32) @ matrix
        sums += p.tdc_jitter_dot * generator.standard_normal(sums.shape, dtype=np.float32)
        codes = np.clip(np.floor((sums - p.tdc_lowest_dot + 1) / p.lsb_dot), 0, p.tdc_codes - 1)
        (p.dot_of_lowest_code + p.lsb_dot * codes).reshape(samples, layer.slices, -1).sum(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    samples = parser.parse_args().samples

    def compiled(model: str, target: str) -> xbcompile.Program:
        return xbcompile.compile(
            f"models/{model}.onnx", target, calibration="mnist:train:1000", cuts="greedy", packing="none"
        )

    rows = []
    for model, target in (("mnist_bnn", "mram64"), ("mnist_mlp", "m2tj4")):
        compile_s = seconds(lambda m=model, t=target: compiled(m, t))
        program = compiled(model, target)
        data = load_data(f"mnist:test:{samples}", program.network.inputs)
        session = Session(program)
        session.run_samples({name: x[:1000] for name, x in data.inputs.items()})
        run_s = seconds(lambda s=session, d=data: s.run_samples(d.inputs))
        reads = (
            sum(
                len(program.schedule.tiles_of(owner)) * layer.slices
                for owner, layer in zip(program.network.matrices, program.network.layers, strict=True)
            )
            * samples
        )
        readings = reads * program.spec.columns
        rows.append((model, target, compile_s, run_s, readings, program))
    print(f"{'model':12} {'target':8} {'compile s':>10} {'run s':>8} {'readings':>14} {'readings/s':>12}")
    for model, target, compile_s, run_s, readings, _ in rows:
        print(f"{model:12} {target:8} {compile_s:10.2f} {run_s:8.2f} {readings:14,} {readings / run_s:12.3g}")
    plain_s = seconds(lambda: plain_numpy(rows[0][5], samples), repeats=1)
    print(
        f"plain numpy simulation of the mram64 reads: {plain_s:.2f} s, {plain_s / rows[0][3]:.1f} times the run above"
    )


if __name__ == "__main__":
    main()
