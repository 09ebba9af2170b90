"""What the rows are driven with for a data set, slice by slice, as drives and as the device's own quantities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np

from xbcompile.errors import DataError
from xbcompile.export.tables import NpzWriter
from xbcompile.ir import MatrixLayer
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import layer_inputs
from xbcompile.runtime.drive import CodedInput
from xbcompile.runtime.layer_input import LayerInput

MOST_DRIVES = 1 << 28  # of one layer, a drive for each input and slice of each vector; assumed


@dataclass(frozen=True, eq=False)
class LayerDrives:
    """Drives of one matrix layer.

    Args:
        layer: its name.
        drives: float32 [groups, vectors, slices, inputs], in the array's drive alphabet.
        coefficients: float64 [slices], what each slice's reading counts.
        gain: float64 [vectors or 1]: inputs are `gain * (sum over slices of coefficient * drive) + shift`.
        shift: float64 [vectors or 1].
    """

    layer: str
    drives: np.ndarray
    coefficients: np.ndarray
    gain: np.ndarray
    shift: np.ndarray


def layer_drives(program: Program, feeds: Mapping[str, np.ndarray]) -> Iterator[LayerDrives]:
    """Drives of every matrix layer, of the ideal values of its inputs; vectors sample after sample.

    Args:
        program: the program.
        feeds: graph inputs by name.

    Raises:
        DataError: there are too many of them for one layer.
    """
    values = layer_inputs(program.network, dict(feeds))
    both_signs = program.spec.drives_both_signs
    for layer in program.network.layers:
        coded = [_coded(layer, each, both_signs) for each in values[layer.name]]
        slices = layer.slices
        total = sum(each.value.size for each in coded) * slices
        if total > MOST_DRIVES:
            raise DataError(
                f"layer {layer.name!r} takes {total:,} drives for these samples; at most {MOST_DRIVES:,} are exported: give "
                "fewer samples, as mnist:test:10"
            )
        code = layer.input_code
        yield LayerDrives(
            layer.name,
            np.concatenate([_expanded(layer, each.value, both_signs) for each in coded], axis=1),
            np.ones(1) if code is None else code.coefficients,
            *(
                np.concatenate([np.broadcast_to(part, each.value.shape[1]) for each, part in pairs])
                for pairs in ([(each, each.gain) for each in coded], [(each, each.shift) for each in coded])
            ),
        )


def _coded(layer: MatrixLayer, x: np.ndarray, both_signs: bool) -> CodedInput:
    """All vectors of one input tensor, coded."""
    given = LayerInput(layer, x, both_signs)
    return given.coded(0, given.count)


def _expanded(layer: MatrixLayer, value: np.ndarray, both_signs: bool) -> np.ndarray:
    """Drives float32 [groups, vectors, slices, inputs] of codes [groups, vectors, inputs]; see `InputCode`."""
    code = layer.input_code
    if code is None:
        return value[:, :, None, :]
    if code.scheme == "analogue":
        slices = value[:, :, None, :]
    elif code.scheme == "thermometer":
        slices = (value[:, :, None, :] >= np.arange(1, code.bits + 1)[:, None]).astype(np.float32)
    else:
        slices = (value[:, :, None, :].astype(np.int64) >> np.arange(code.bits)[:, None] & 1).astype(np.float32)
    return 2 * slices - 1 if both_signs else slices


def write_drives_npz(program: Program, feeds: Mapping[str, np.ndarray], file: IO[bytes]) -> None:
    """Write `LAYER/drive` and the device's own quantities [groups, vectors, slices, inputs], `/coefficients`, `/gain`, `/shift`.

    Args:
        program: the program.
        feeds: graph inputs by name.
        file: open for writing.

    Raises:
        DataError: see `layer_drives`.
    """
    writer, parameters = NpzWriter(file), program.target.parameters
    for each in layer_drives(program, feeds):
        arrays = {"drive": each.drives, **parameters.row_signals(each.drives)}
        arrays |= {"coefficients": each.coefficients, "gain": each.gain, "shift": each.shift}
        for name, array in arrays.items():
            writer.add(f"{each.layer}/{name}", array.shape, array.dtype, iter([array]))
    writer.close()
