"""A network as a program file describes it: its nodes in the manifest, its tensors in the archive."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from xbcompile.ir import DigitalSegment, Network, NetworkNode, Recurrence, SampleAxes, WeightCode
from xbcompile.program.archive import TensorPool


def describe_nodes(nodes: Sequence[NetworkNode]) -> list[dict[str, Any]]:
    """Order of execution: a layer's fields, the run of host-graph nodes that is a segment, or a recurrence.

    Positions count the nodes of the host graph, in a recurrence those of its Scan's body.
    """
    described: list[dict[str, Any]] = []
    position = 0
    for node in nodes:
        if isinstance(node, DigitalSegment):
            count = len(node.model.graph.node)
            described.append(
                {
                    "segment": node.name,
                    "first": position,
                    "count": count,
                    "constants": [initializer.name for initializer in node.model.graph.initializer],
                    "inputs": list(node.input_names),
                    "outputs": list(node.output_names),
                }
            )
            position += count
            continue
        position += 1
        if isinstance(node, Recurrence):
            fields = {
                f.name: getattr(node, f.name) for f in dataclasses.fields(node) if f.name not in ("name", "nodes")
            }
            for name in ("sequences", "states", "outputs"):
                fields[name] = [asdict(each) for each in fields[name]]
            body = describe_nodes(node.nodes)
            described.append({"recurrence": node.name, "position": position - 1, "nodes": body, **fields})
            continue
        assert node.weight_code is not None
        described.append(
            {
                "layer": node.name,
                "input": node.input,
                "output": node.output,
                "matrix": node.matrix,
                "shape": list(node.shape),
                "geometry": {"kind": type(node.geometry).__name__, **asdict(node.geometry)},
                "element_type": node.element_type,
                "vectors_per_inference": node.vectors_per_inference,
                "sample_axis": node.sample_axis,
                "input_code": None if node.input_code is None else asdict(node.input_code),
                "stands_for": node.stands_for,
                "input_grid": None if node.input_grid is None else asdict(node.input_grid),
            }
        )
    return described


def describe_samples(samples: SampleAxes) -> dict[str, Any]:
    """Which axes count samples; the order of inputs and outputs is the model's, which JSON objects do not keep."""
    return {
        "inputs": list(samples.inputs.items()),
        "outputs": list(samples.outputs.items()),
        "ranks": list(samples.ranks.items()),
        "call": samples.call,
        "shared": list(samples.shared),
        "mixed": samples.mixed,
    }


def describe_tensors(network: Network, pool: TensorPool) -> list[dict[str, dict[str, Any]]]:
    """The tensors of each matrix layer; the weight code of layers that share a matrix is with the first."""
    described = []
    for i, layer in enumerate(network.layers):
        code = layer.weight_code
        assert code is not None
        arrays = {"bias": layer.bias}
        if network.matrices[i] == i:
            arrays |= {"codes": pack_codes(code), "scale": code.scale, "offset": code.offset}
        described.append({name: _described(array, pool) for name, array in arrays.items()})
    return described


def _described(array: np.ndarray, pool: TensorPool) -> dict[str, Any]:
    return {"member": pool.add(array), "element_type": array.dtype.name, "shape": list(array.shape)}


def pack_codes(code: WeightCode) -> np.ndarray:
    """Codes as they are stored: 1, 2, 4 or 8 bits each in a uint8 vector; continuous cells as float32."""
    if code.levels is None:
        return code.codes
    bits = code_bits(len(code.levels))
    if bits == 8:
        return code.codes.ravel()
    codes = code.codes.ravel()
    if bits == 1:
        return np.packbits(codes, bitorder="little")
    each = 8 // bits
    packed = np.zeros(-(-codes.size // each), np.uint8)
    for i in range(each):  # the first code of a byte in its lowest bits
        some = codes[i::each]
        packed[: some.size] |= some << np.uint8(i * bits)
    return packed


def unpack_codes(packed: np.ndarray, shape: tuple[int, ...], levels: np.ndarray | None) -> np.ndarray:
    """Inverse of `pack_codes`."""
    if levels is None:
        return packed.reshape(shape)
    bits, count = code_bits(len(levels)), int(np.prod(shape))
    if bits == 8:
        return packed.reshape(shape)
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little").reshape(shape)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed[:, None] >> shifts
    codes &= np.uint8(2**bits - 1)
    return codes.reshape(-1)[:count].reshape(shape)


def code_bits(levels: int) -> int:
    """Bits in which an index of so many levels is stored."""
    return next(bits for bits in (1, 2, 4, 8) if levels <= 2**bits)
