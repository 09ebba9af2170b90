"""Commissioning a chip for a program: its device passes are fitted through the chip's own readout, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from xbcompile.errors import PassError, TargetError, quoted
from xbcompile.ir.corrections import Corrections
from xbcompile.onnx_graph.engine import ERRORS, one_line
from xbcompile.program.program import Program
from xbcompile.runtime.chip_view import BeforeLayer, ProgramOnChip
from xbcompile.runtime.dataflow import Digital
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.one_by_one import EffortCounter, batched
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.targets import BatchedDevice, Device
from xbcompile.targets.contract import HasDefectMap, HasIdentity


def chip_of(program: Program, device: str | Device | None, seed: int) -> Device:
    """The device that a caller means: one of the program's target by name, or the device itself.

    Raises:
        TargetError: the target has no such device.
    """
    return program.target.device(device, seed) if device is None or isinstance(device, str) else device


def chip_name(program: Program, device: str | Device | None, seed: int) -> str:
    """What a chip is called in corrections: `identity` of a device that has one, else its name and seed.

    Raises:
        TargetError: the target has no such device.
    """
    if device is None or isinstance(device, str):
        return f"{program.target.device_name(device)} seed {seed}"
    name = device.identity if isinstance(device, HasIdentity) else type(device).__name__
    if not isinstance(name, str):
        raise TargetError(f"device {type(device).__name__} has identity {quoted(name)}; it must be a text")
    return name


def with_corrections(device: Device, corrections: Corrections) -> Device:
    """The device as corrections want it; the caller's own stays as it is.

    Raises:
        TargetError: they use a defect map, and the device has none.
    """
    if not corrections.defects_known:
        return device
    if not isinstance(device, HasDefectMap):
        raise TargetError(f"corrections use a defect map, and device {type(device).__name__} has none")
    return device.with_known_defects()


def commission(
    program: Program,
    device: str | Device | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Corrections:
    """Fit every device pass of the program's pipeline on a chip, on the program's calibration inputs.

    Args:
        program: what the chip is to run.
        device: a device name of the program's target (see `Target.device_names`), a Device, or None for the default.
        seed: which simulated chip.
        threads: worker threads; None takes one per processor.
        progress: told what is fitted next, and the part of all layers of all passes (0 to 1) that is done.

    Returns:
        The corrections, bound to the program and the chip, with the writes and reads that they took. The chip is not changed, but
        for what its arrays hold.

    Raises:
        TargetError: the target has no such device, or it gives no finite readings.
        PassError: a pass cannot be fitted.
    """
    chip, prepared = chip_of(program, device, seed), PreparedProgram(program, threads)
    layers = max(1, len(prepared.device_passes) * len(program.network.layers))
    reached = count()

    def before_layer(executor: LayerExecutor, values: object) -> None:
        if progress is not None:
            progress(f"layer {executor.layer.name}", min(next(reached) / layers, 1.0))

    digital = Digital(program.network, segments=prepared.segments)
    with prepared.blas.limit(limits=1):
        found = fitted(prepared, chip, digital, before_layer=before_layer)
    return replace(found, program=program.digest, chip=chip_name(program, device, seed))


def fitted(
    prepared: PreparedProgram,
    chip: Device,
    digital: Digital,
    make_executor: Callable[..., LayerExecutor] = LayerExecutor,
    before_layer: BeforeLayer | None = None,
) -> Corrections:
    """`commission` without binding to the chip and the program.

    Args:
        prepared: what the chip is to run.
        chip: the device.
        digital: the program's digital segments.
        make_executor: makes executors of layers, as `LayerExecutor`.
        before_layer: called with an executor and the tensors at hand before it sees its inputs.
    """
    program, passes = prepared.program, prepared.device_passes
    corrections = no_corrections(program)
    counter = EffortCounter(program.spec.rows)
    adapted = {False: batched(chip)}

    def device_of(wanted: Corrections) -> BatchedDevice:
        if wanted.defects_known not in adapted:
            adapted[True] = batched(with_corrections(chip, wanted))
        return adapted[wanted.defects_known]

    def make(placed: PlacedProgram, index: int, on: BatchedDevice, counted: EffortCounter) -> LayerExecutor:
        return make_executor(placed, index, on, prepared.workers, counted)

    for number, each in enumerate(passes):
        if each.needs_calibration and not program.calibration:
            continue
        later = tuple(passes[number + 1 :])
        view = ProgramOnChip(prepared, device_of, chip, later, digital, make, counter, before_layer)
        try:
            corrections = each.fit(view, prepared.calibration(each.samples), corrections)
        except ERRORS as error:
            raise PassError(
                f"{each.name} cannot be fitted: onnxruntime cannot run the model on the calibration inputs: {one_line(error)}"
            ) from error
        if corrections.moves_cells and program.schedule.cells_written is not None:
            raise PassError(
                f"{each.name} moves weights to other cells, so a write would change other rows than the schedule counts; "
                f"compile with --rewrite all, or leave the pass out"
            )
    return replace(corrections, effort=counter.effort)
