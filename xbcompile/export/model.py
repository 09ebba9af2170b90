"""The program as an ONNX model for other tools: plain onnxruntime runs it, Netron shows what each layer costs on the arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from xbcompile.errors import ProgramError
from xbcompile.program.program import Program
from xbcompile.report.summary import summarize

_PREFIX = "xbcompile."  # of the keys of metadata
_SHOWN = (
    "tiles", "images", "weight_updates", "reads_per_inference", "utilisation", "e_read_per_inference_j",
    "t_read_per_inference_s", "share_of_array_time",
)  # fmt: skip
_LARGEST_BYTES = 2**31 - 2**20  # of a protobuf message, which must be below 2 GiB


def annotated_model(program: Program) -> onnx.ModelProto:
    """The host graph, a function per matrix layer, with what each layer takes on the arrays as metadata of its node.

    Args:
        program: the program.
    """
    model = onnx.ModelProto()
    model.CopyFrom(program.host)
    facts = summarize(program)
    for key in ("digest", "target", "pipeline"):
        model.metadata_props.add(key=_PREFIX + key, value=str(facts["program"][key]))
    layers = layer_metadata(program, facts)
    for node in _nodes(model.graph):
        for key, value in layers.get(node.name, {}).items():
            node.metadata_props.add(key=_PREFIX + key, value=str(value))
    return model


def layer_metadata(program: Program, facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each matrix layer takes on the arrays, by the layer's name.

    Args:
        program: the program.
        facts: of `summarize`.
    """
    schedule = program.schedule
    found = {}
    for row, owner in zip(facts["layers"], program.network.matrices, strict=True):
        images = sorted(set(schedule.tiles["image"][schedule.tiles["layer"] == owner].tolist()))
        arrays = sorted({int(each["array"]) for each in schedule.copies if each["image"] in images})
        found[row["layer"]] = {"arrays": _ranges(arrays), **{name: row[name] for name in _SHOWN}}
    return found


def _ranges(numbers: list[int]) -> str:
    """Whole numbers, ascending, as text: 0-3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of those within."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def write_model(program: Program, path: str | os.PathLike[str]) -> None:
    """Write `annotated_model`.

    Args:
        program: the program.
        path: of the file.

    Raises:
        ProgramError: it is too large for one ONNX file, or cannot be written.
    """
    model = annotated_model(program)
    if model.ByteSize() > _LARGEST_BYTES:
        raise ProgramError(
            f"the program's ONNX model takes {model.ByteSize():,} bytes, more than one file can hold; the program file itself is "
            "an archive whose host.onnx has its tensors beside it"
        )
    from xbcompile.files import write_atomically

    write_atomically(Path(path), model.SerializeToString(deterministic=True))


def overlay(program: Program, quantity: str = "reads_per_inference") -> dict[str, Any]:
    """One number for each node as Model Explorer's custom node data, by the names of the host graph's nodes.

    Args:
        program: the program.
        quantity: one of the numbers of a layer.
    """
    layers = layer_metadata(program, summarize(program))
    return {
        "results": {name: {"value": values[quantity]} for name, values in layers.items()},
        "gradient": [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#2a78d6"}],
    }
