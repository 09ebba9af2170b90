"""The two-layer perceptron on `mram64`, digit by digit, dot product by dot product and from repeat to repeat.

Source: Jung et al., Nature 601, 211 (2022), Fig. 3 and Methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xbcompile.data.datasets import Data, load_data
from xbcompile.experiments.figure import Effort, Figure, Map, Panel, Series, numbers
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.mram64_array import spread_of
from xbcompile.experiments.reproduction import Experiment
from xbcompile.program.cells import CellImages
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import evaluate
from xbcompile.runtime import Session
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.targets import ReadBlock, WrittenImages
from xbcompile.targets.families.resistance_sum import ResistanceSumArray, ResistanceSumParameters

_DIGITS = 10
_IMAGES_OF_ERRORS, _REPEATS = 200, 3


def _images(experiment: Experiment, program: Program, count: int | None) -> tuple[Data, np.ndarray]:
    data = load_data(
        experiment.data if count is None else f"{experiment.data}:{count}",
        program.network.inputs,
        program.network.samples,
    )
    assert data.labels is not None
    return data, data.labels


def _answers(program: PreparedProgram, device: str | None, seed: int, data: Data) -> np.ndarray:
    outputs = Session(program, device, seed).run_samples(data.inputs, observe=False)
    return np.asarray(outputs[program.program.network.outputs[0].name].argmax(axis=1))


def confusion(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Percentage of the inputs of each digit that get each answer, float64 [digits, answers]."""
    counts = np.zeros((_DIGITS, _DIGITS))
    np.add.at(counts, (labels, answers), 1)
    return np.asarray(100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def figure_3b(experiment: Experiment, effort: Effort) -> Figure:
    """Accuracy of each digit in software and on the array, and which digits are taken for which (Fig. 3b).

    Args:
        experiment: the paper's procedure; its first network is run on chip 0.
        effort: models and threads.
    """
    program = experiment.compiled(effort.models, experiment.quantities)
    data, labels = _images(experiment, program, 1000 if effort.quick else None)
    prepared = PreparedProgram(program, effort.threads)
    array = confusion(labels, _answers(prepared, experiment.device, 0, data))
    name = program.network.outputs[0].name
    exact = np.concatenate(
        evaluate(program.network, data.inputs, [name])[0]
    )  # the network is binary: its codes are its weights
    software = confusion(labels, exact.argmax(axis=1))
    digits = numbers(np.arange(_DIGITS))
    software_all = 100 * float(np.mean(exact.argmax(axis=1) == labels))
    names: list[float | str] = [str(digit) for digit in range(_DIGITS)]
    right = Panel(
        "right answers",
        "digit",
        "per cent",
        [
            Series("software", digits, numbers(np.diag(software)), marks="points"),
            Series("array", digits, numbers(np.diag(array)), marks="points"),
        ],
    )
    rows: list[list[float | None]] = [list(numbers(row)) for row in array]
    table = Map("per cent of the inputs of a digit", rows, names, names)
    return Figure(
        [right, Panel("answers of the array", "answer", "digit", map=table)],
        f"{experiment.title}; chip 0, {len(labels):,} test images, software {software_all:.2f} %.",
    )


def code_errors(program: Program, seed: int, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Errors of every dot product of a program on a chip, float64: see `tile_reads`."""
    return np.concatenate([error.ravel() for _, _, error in tile_reads(program, seed, feeds)])


def tile_reads(
    program: Program, seed: int, feeds: dict[str, np.ndarray]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Every dot product of a program on a chip, tile by tile, and its error: code that is read, with the column's offset, less
    the right one.

    Drives, cells and dot products are made here from the schedule's tables, apart from the runtime; a row counts as 1, as it does
    for a network that knows nothing of rows. Layers see their ideal inputs, in thermometer codes.

    Args:
        program: compiled for a resistance-sum target, thermometer codes without a range of their own.
        seed: which chip.
        feeds: inputs by name.

    Yields:
        the tile's number; dot products over all rows of the array and their errors, float64 [vectors, slices, columns] each, of
        the columns that have an output.
    """
    session, schedule, spec = Session(program, seed=seed), program.schedule, program.spec
    p, device = program.target.parameters, session.device
    assert isinstance(p, ResistanceSumParameters)
    assert isinstance(device, ResistanceSumArray)
    offset = session.corrections.column_offset
    cells = CellImages(program.network, schedule, spec, None, None)
    inputs = evaluate(program.network, feeds, [layer.input for layer in program.network.layers])
    assert spec.levels is not None
    for number, tile in enumerate(schedule.tiles):
        layer = program.network.layers[int(tile["layer"])]
        assert layer.input_code is not None
        x = np.concatenate(inputs[int(tile["layer"])])[:, tile["k0"] : tile["k1"]]
        steps, low, high = layer.input_code.bits, layer.input_code.low or 0.0, layer.input_code.high or 1.0
        on = np.rint((x - low) / (high - low) * steps)[:, None, :] > np.arange(steps)[:, None]
        drives = np.tile(spec.idle_drive, (len(x), steps, 1))
        drives[:, :, tile["row"] : tile["row"] + x.shape[1]] = np.where(on, 1, -1)
        image = int(tile["image"])
        array = int(schedule.arrays_of(np.array([image]))[0][0])
        written = WrittenImages.once(np.array([array]), cells.of(np.array([image])))
        readings = device.load(written).read(drives[None], ReadBlock(np.array([number]), 0))[0].astype(np.float64)
        if offset is not None:
            readings = readings + offset[array]
        dots = drives.astype(np.float64) @ spec.levels[written.cells[0]].astype(np.float64)
        right = np.clip(np.floor((dots - (p.tdc_lowest_dot - 1)) / p.lsb_dot), 0, p.tdc_codes - 1)
        code = (readings - p.dot_of_lowest_code) / p.lsb_dot
        width = int(tile["m1"] - tile["m0"])
        columns = schedule.column_permutation[image, tile["column"] : tile["column"] + width]
        yield number, dots[:, :, columns], (code - right)[:, :, columns]


def figure_3c(experiment: Experiment, effort: Effort) -> Figure:
    """Distribution of the errors of dot products in the classification task (Fig. 3c)."""
    program = experiment.compiled(effort.models, experiment.quantities)
    count = 20 if effort.quick else _IMAGES_OF_ERRORS
    error = code_errors(program, 0, _images(experiment, program, count)[0].inputs)
    codes = np.arange(error.min(), error.max() + 1)
    share = np.histogram(error, np.append(codes, codes[-1] + 1) - 0.5)[0] / error.size
    within = float(np.mean(np.abs(error) <= 1))
    return Figure(
        [
            Panel(
                "",
                "error in LSB",
                "share of dot products",
                [Series("chip 0", numbers(codes), numbers(share), marks="bars")],
            )
        ],
        f"{error.size:,} dot products of {count} test images; {100 * within:.1f} % within 1 LSB (published: mostly).",
    )


def dot_products(experiment: Experiment, effort: Effort) -> Measured:
    """Dot products of three passes over 10,000 images: columns with outputs, of every tile and slice (Methods)."""
    program = experiment.compiled(effort.models, experiment.quantities)
    tiles = program.schedule.tiles
    slices = [0 if layer.input_code is None else len(layer.input_code.coefficients) for layer in program.network.layers]
    each = sum(int(tile["m1"] - tile["m0"]) * slices[int(tile["layer"])] for tile in tiles)
    return Measured(3 * 10_000 * each / 1e6, note=f"{each:,} for one image")


def repeat_spread(experiment: Experiment, scrambled_anew: bool, effort: Effort) -> Measured:
    """Standard deviation of the accuracy over three passes of one chip over the test images.

    Args:
        experiment: what runs; its first network.
        scrambled_anew: every pass has other permutations of the columns of all images, as weights are written anew; else one
            set of permutations, so that read noise alone differs.
        effort: chips, models, threads.
    """
    chips = min(effort.seeds, 2 if effort.quick else 3)
    programs = [
        _seeded(experiment, seed).compiled(effort.models, experiment.quantities)
        for seed in (range(_REPEATS) if scrambled_anew else range(1))
    ]
    data, labels = _images(experiment, programs[0], 1000 if effort.quick else None)
    found = []
    for chip in range(chips):
        accuracies = []
        sessions = [Session(PreparedProgram(program, effort.threads), experiment.device, chip) for program in programs]
        for repeat in range(_REPEATS):
            session = sessions[repeat % len(sessions)]
            outputs = session.run_samples(data.inputs, first_sample=repeat * data.samples, observe=False)
            answers = outputs[session.program.network.outputs[0].name].argmax(axis=1)
            accuracies.append(100 * float(np.mean(answers == labels)))
        found.append(spread_of(accuracies)[1] or 0.0)
    mean, _ = spread_of(np.square(found))
    return Measured(
        float(np.sqrt(mean)), None, chips, f"{_REPEATS} passes on each of {chips} chips, root of the mean variance"
    )


def _seeded(experiment: Experiment, seed: int) -> Experiment:
    return replace(experiment, options={**experiment.options, "seed": seed})
