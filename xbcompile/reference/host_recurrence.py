"""Recurrences in the host graph: one Scan each; and values of tensors inside the bodies of Scans."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import onnx
from onnx import TensorProto, TypeProto, helper

from xbcompile.ir.layer import DigitalSegment, MatrixLayer
from xbcompile.ir.recurrence import Recurrence
from xbcompile.onnx_graph.builder import make_graph
from xbcompile.onnx_graph.domains import ONNX_DOMAINS


def scan_of(recurrence: Recurrence, body_nodes: Iterable[onnx.NodeProto]) -> onnx.NodeProto:
    """The Scan whose body has these nodes; it reads constants and other tensors of the graph around it by name."""
    types = _types_inside(recurrence)
    starts = [*(each.start for each in recurrence.states), *(each.inner for each in recurrence.sequences)]
    ends = [*(each.end for each in recurrence.states), *(each.inner for each in recurrence.outputs)]
    body = make_graph(
        f"{recurrence.name}/body",
        body_nodes,
        [onnx.ValueInfoProto(name=name, type=types.get(name)) for name in starts],
        [onnx.ValueInfoProto(name=name, type=types.get(name)) for name in ends],
    )
    borders = {*starts, *ends}
    body.value_info.extend(onnx.ValueInfoProto(name=n, type=t) for n, t in types.items() if n not in borders)
    reverse = int(recurrence.reverse)
    outputs: dict[str, Any] = {}
    if recurrence.outputs:
        outputs["scan_output_directions"] = [reverse] * len(recurrence.outputs)
    return helper.make_node(
        "Scan",
        [*(each.initial for each in recurrence.states), *(each.outer for each in recurrence.sequences)],
        list(recurrence.output_names),
        recurrence.name,
        body=body,
        num_scan_inputs=len(recurrence.sequences),
        scan_input_directions=[reverse] * len(recurrence.sequences),
        **outputs,
    )


def _types_inside(recurrence: Recurrence) -> dict[str, TypeProto]:
    """What the nodes of the body say of the types of its tensors."""
    types: dict[str, TypeProto] = {}
    inner = set(recurrence.inner_names)
    for node in recurrence.nodes:
        if isinstance(node, DigitalSegment):
            graph = node.model.graph
            types.update({value.name: value.type for value in (*graph.input, *graph.output) if value.name in inner})
    for node in recurrence.nodes:
        if isinstance(node, MatrixLayer):
            for name in (node.input, node.output):
                if name in inner:
                    types.setdefault(name, helper.make_tensor_type_proto(node.element_type, None))
    return types


def scan_bodies(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The Scan inside which each tensor of a Scan's body exists, by the tensor's name."""
    found: dict[str, onnx.NodeProto] = {}
    for scan in graph.node:
        if scan.op_type == "Scan" and scan.domain in ONNX_DOMAINS:
            body = body_of(scan)
            names = [*(value.name for value in body.input), *(name for node in body.node for name in node.output)]
            found.update(dict.fromkeys(names, scan))
    return found


def body_of(scan: onnx.NodeProto) -> onnx.GraphProto:
    """The body of a Scan."""
    return next(attribute.g for attribute in scan.attribute if attribute.name == "body")


def is_scan(node: onnx.NodeProto) -> bool:
    """Whether a node is a Scan of ONNX with a body."""
    has_body = any(attribute.name == "body" and attribute.HasField("g") for attribute in node.attribute)
    return node.op_type == "Scan" and node.domain in ONNX_DOMAINS and has_body


def is_wired_as(scan: onnx.NodeProto, recurrence: Recurrence) -> bool:
    """Whether a Scan has the recurrence's name, and reads, carries and writes the same tensors; the nodes of its body aside."""
    return scan.name == recurrence.name and _wiring(scan) == _wiring(scan_of(recurrence, []))


def _wiring(scan: onnx.NodeProto) -> dict[str, list[Any]]:
    """All of a Scan but the nodes of its body."""
    body = body_of(scan)
    ends = {"starts": [value.name for value in body.input], "ends": [value.name for value in body.output]}
    attributes = {a.name: [a.SerializeToString(deterministic=True)] for a in scan.attribute if a.name != "body"}
    return {"inputs": list(scan.input), "outputs": list(scan.output), **ends, **attributes}


def expose(graph: onnx.GraphProto, names: Collection[str]) -> dict[str, str]:
    """Make tensors inside the bodies of Scans outputs of these Scans: stacked along a new axis 0, one entry per step.

    Args:
        graph: is changed.
        names: tensors anywhere; those that the graph itself writes are left alone.

    Returns:
        name of the stacked tensor in the graph for each tensor inside a body.
    """
    written = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    inside = [name for name in names if name not in written]
    if not inside:
        return {}
    scans, stacked = scan_bodies(graph), {}
    for name in inside:
        if name not in scans:
            continue
        scan = scans[name]
        body = body_of(scan)
        shown, stacked[name] = f"xbcompile::{name}/shown", f"xbcompile::{name}/stacked"
        body.node.append(helper.make_node("Identity", [name], [shown]))
        body.output.append(onnx.ValueInfoProto(name=shown, type=_type_of(body, name)))
        scan.output.append(stacked[name])
        directions = {attribute.name: attribute for attribute in scan.attribute}
        reverse = list(directions["scan_input_directions"].ints) if "scan_input_directions" in directions else [0]
        if "scan_output_directions" in directions:
            directions["scan_output_directions"].ints.append(reverse[0])
        elif any(reverse):
            count = len(body.output) - (len(body.input) - len(reverse))
            scan.attribute.append(helper.make_attribute("scan_output_directions", [0] * (count - 1) + [reverse[0]]))
    return stacked


def _type_of(body: onnx.GraphProto, name: str) -> TypeProto:
    """The type of a tensor of a body, without a shape where it is not stated."""
    known = {value.name: value.type for value in (*body.input, *body.output, *body.value_info)}
    plain: TypeProto = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    found = known.get(name)
    return plain if found is None or found.WhichOneof("value") is None else found
