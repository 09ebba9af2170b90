"""Damaged model files, and what compiling each must give: one clear error, or a program that is right.

`python -m tests.fuzz.mutations 500` runs 500 of them (`--first N`: from case N on; `--workers N`) and prints what is wrong. A
case is its number: the same number is the same file on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from tests.fuzz.mutated_models import MODEL, NAMES, Files, sound
from tests.fuzz.mutating_tensors import (
    SIZES,
    Random,
    a_tensor,
    cast_tensor,
    cut_tensor,
    misplace_data,
    pick,
    resize_tensor,
    retype_tensor,
    spoil_data,
    spoil_weights,
    swap_tensors,
)


def all_graphs(model: ModelProto) -> list[GraphProto]:
    """The main graph, most often, and those in it."""
    found, pending = [], [model.graph]
    while pending:
        graph = pending.pop()
        found.append(graph)
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        pending += [attribute.g for attribute in attributes if attribute.HasField("g")]
    return [model.graph] * 3 + found


def a_node(model: ModelProto, random: Random) -> NodeProto | None:
    functions = [node for function in model.functions for node in function.node]
    return pick(random, [*pick(random, all_graphs(model)).node, *functions])


def a_type(model: ModelProto, random: Random) -> TypeProto | None:
    graph = pick(random, all_graphs(model))
    value = pick(random, [*graph.input, *graph.input, *graph.output, *graph.value_info])
    return None if value is None else value.type


def names(model: ModelProto) -> list[str]:
    graph = model.graph
    found = [name for node in graph.node for name in (*node.input, *node.output)]
    return sorted({*found, *(value.name for value in (*graph.input, *graph.initializer))})


# Types of graph inputs and outputs


def retype_value(model, random):
    found = a_type(model, random)
    if found is None:
        return
    kind = int(random.integers(4))
    if kind == 0:
        found.Clear()
    elif kind == 1:
        inner = TypeProto()
        inner.CopyFrom(found)
        found.sequence_type.elem_type.CopyFrom(inner)
    else:
        found.tensor_type.elem_type = int(random.choice([0, 1, 2, 6, 7, 8, 9, 10, 11, 99]))


def resize_value(model, random):
    found = a_type(model, random)
    if found is None:
        return
    dims = found.tensor_type.shape.dim
    kind = int(random.integers(5))
    if kind == 0:
        found.tensor_type.ClearField("shape")
    elif kind == 1 and dims:
        del dims[int(random.integers(len(dims)))]
    elif kind == 2:
        dims.add(dim_value=int(random.choice(SIZES)))
    elif dims:
        dim = dims[int(random.integers(len(dims)))]
        if kind == 3:
            dim.dim_value = int(random.choice(SIZES))
        else:
            dim.dim_param = pick(random, ["n", "batch", "", "x:0", "a=b"])


# Nodes and graphs


def remove_node(model, random):
    graph = pick(random, all_graphs(model))
    if len(graph.node):
        del graph.node[int(random.integers(len(graph.node)))]


def duplicate_node(model, random):
    graph = pick(random, all_graphs(model))
    if len(graph.node):
        copy = pick(random, graph.node)
        graph.node.add().CopyFrom(copy)
        if random.integers(2):
            graph.node[-1].output[:] = [f"{name}_again" for name in copy.output]


def shuffle_nodes(model, random):
    order = random.permutation(len(model.graph.node))
    nodes = [NodeProto.FromString(model.graph.node[int(i)].SerializeToString()) for i in order]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def rewire(model, random):
    """Another input or output name: missing, a later one (a cycle), its own, one that is taken, none."""
    node = a_node(model, random)
    if node is None:
        return
    side = node.input if random.integers(3) else node.output
    if not side:
        return
    other = pick(random, [*names(model), *node.output, "nothing", ""])
    side[int(random.integers(len(side)))] = other


def change_arity(model, random):
    node = a_node(model, random)
    if node is None:
        return
    side = node.input if random.integers(3) else node.output
    if random.integers(2) and side:
        side.pop()
    else:
        side.append(pick(random, [*names(model), "new", ""]))


def swap_inputs(model, random):
    node = a_node(model, random)
    if node is not None and len(node.input) > 1:
        node.input[:] = [node.input[int(i)] for i in random.permutation(len(node.input))]


def change_operator(model, random):
    node = a_node(model, random)
    if node is None:
        return
    if random.integers(4):
        node.op_type = pick(
            random,
            [
                "Relu",
                "MatMul",
                "Gemm",
                "Conv",
                "Add",
                "LSTM",
                "Reshape",
                "Nonsense",
                "",
                "Identity",
                "ConvTranspose",
                "Loop",
            ],
        )
    else:
        node.domain = pick(random, ["", "ai.onnx", "com.microsoft", "local", "nowhere"])


def rename(model, random):
    text = pick(random, ["", "a\nb", "a/b", "\u202e\u2603", "x" * 9999, "digital0", "y", "\0"])
    node, tensor = a_node(model, random), a_tensor(model, random)
    kind = int(random.integers(4))
    if kind == 0 and node is not None:
        node.name = text
    elif kind == 1 and tensor is not None:
        tensor.name = text
    elif kind == 2:
        model.graph.name = text
    else:
        value = pick(random, [*model.graph.input, *model.graph.output])
        if value is not None:
            value.name = text


def duplicate_value(model, random):
    graph = model.graph
    kind = int(random.integers(5))
    if kind == 0 and len(graph.initializer):
        graph.initializer.add().CopyFrom(pick(random, graph.initializer))
    elif kind == 1 and len(graph.input):
        graph.input.add().CopyFrom(pick(random, graph.input))
    elif kind == 2 and len(graph.output):
        graph.output.add().CopyFrom(pick(random, graph.output))
    elif kind == 3 and len(graph.initializer):  # an initializer that is an input too
        tensor = pick(random, graph.initializer)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    elif len(graph.input):
        graph.output.add().CopyFrom(pick(random, graph.input))


def remove_value(model, random):
    graph = pick(random, all_graphs(model))
    field = pick(random, [graph.initializer, graph.initializer, graph.input, graph.output, graph.value_info])
    if len(field):
        del field[int(random.integers(len(field)))]


def nest(model, random):
    """An If in an If in an If ..., or functions that call each other without end."""
    depth = int(random.choice([3, 10, 20, 31]))  # protobuf reads a hundred levels; an If is three
    if random.integers(3) == 0:
        opset = [helper.make_opsetid("", 17), helper.make_opsetid("deep", 1)]
        for i in range(depth):
            called = (i + 1) % depth if random.integers(2) else min(i + 1, depth - 1)
            node = helper.make_node(f"F{called}", ["a"], ["b"], domain="deep")
            if i == depth - 1 and called == i:
                node = helper.make_node("Relu", ["a"], ["b"])
            model.functions.append(helper.make_function("deep", f"F{i}", ["a"], ["b"], [node], opset))
        model.opset_import.append(helper.make_opsetid("deep", 1))
        call = helper.make_node("F0", [model.graph.output[0].name], ["deep_y"], domain="deep")
        model.graph.node.append(call)
        model.graph.output.append(onnx.ValueInfoProto(name="deep_y"))
        return
    result = model.graph.output[0].name if len(model.graph.output) else "y"
    node = helper.make_node("Identity", [result], ["deep0"])
    for i in range(depth):
        value = helper.make_tensor_value_info(f"deep{i}", TensorProto.FLOAT, None)
        branches = {
            "then_branch": helper.make_graph([node], "t", [], [value]),
            "else_branch": helper.make_graph(
                [helper.make_node("Identity", [result], [f"e{i}"])],
                "e",
                [],
                [helper.make_tensor_value_info(f"e{i}", TensorProto.FLOAT, None)],
            ),
        }
        node = helper.make_node("If", ["deep_test"], [f"deep{i + 1}"], **branches)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "deep_test"))
    model.graph.node.append(node)
    model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))


# Attributes and versions

ATTRIBUTES = {
    "group": [0, -1, 2, 3, 10**9],
    "strides": [[0, 0], [-1, 1], [2], [10**9, 10**9], [1, 2], []],
    "dilations": [[0, 0], [-1, 1], [2, 2], [10**9, 1], [2]],
    "pads": [[-1, -1, -1, -1], [1, 0], [10**9] * 4, [2, 1, 0, 3], []],
    "kernel_shape": [[3], [0, 0], [-3, 3], [2, 2], [10**9, 1]],
    "auto_pad": [b"SAME_LOWER", b"VALID", b"NOTSET", b"NONSENSE", b"\xff\xfe", b""],
    "axis": [99, -99, 0, -1, 2],
    "alpha": [float("nan"), float("inf"), 0.0, -1.0],
    "beta": [float("nan"), 0.0, -2.0],
    "transA": [0, 1, 2, -1],
    "transB": [0, 1, 5],
    "perm": [[0, 0, 1], [1, 0], [2, 1, 0, 3], [9, 1, 0], [-1, 0, 1]],
    "hidden_size": [0, -1, 2, 10**9],
    "direction": [b"reverse", b"forward", b"sideways"],
    "output_padding": [[5], [-1], [0], [1, 1]],
    "output_shape": [[7], [0], [-1], [10**9]],
    "equation": [b"", b"bi,io->", b"bi,oi->bo", b"...i,io->...o", b"ii,io->o", b"bi->bi,io", b"\xff"],
    "to": [0, 1, 7, 11, 99, -1],
    "keepdims": [0, 1, 7],
    "epsilon": [-1.0, 0.0, float("nan")],
    "linear_before_reset": [0, 1, 2],
    "layout": [0, 1, 2],
}


def change_attribute(model, random):
    """A value that this attribute knows, or one that does not belong there; also to a node that lacks the attribute."""
    node = a_node(model, random)
    if node is None:
        return
    known = ATTRIBUTES.keys() & (onnx.defs.get_schema(node.op_type).attributes if onnx.defs.has(node.op_type) else ())
    name = pick(random, sorted(known) if known and random.integers(8) else ATTRIBUTES)
    kept = [AttributeProto.FromString(a.SerializeToString()) for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    value = pick(random, ATTRIBUTES[name])
    if isinstance(value, list) and not value:
        node.attribute.append(AttributeProto(name=name, type=AttributeProto.INTS))
    else:
        node.attribute.append(helper.make_attribute(name, value))


def spoil_attribute(model, random):
    node = a_node(model, random)
    attribute = None if node is None else pick(random, node.attribute)
    if attribute is None:
        return
    kind = int(random.integers(5))
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        node.attribute.add().CopyFrom(attribute)
    elif kind == 2:
        attribute.type = int(random.integers(15))
    elif kind == 3:
        attribute.name = pick(random, ["unknown", "", "value", *ATTRIBUTES])
    else:
        attribute.ref_attr_name = "nothing"


def change_versions(model, random):
    kind = int(random.integers(6))
    if kind == 0 and len(model.opset_import):
        del model.opset_import[int(random.integers(len(model.opset_import)))]
    elif kind == 1:
        model.opset_import.append(helper.make_opsetid(pick(random, ["", "ai.onnx", "nowhere"]), 12))
    elif kind == 2:
        model.ir_version = int(random.choice([-1, 0, 1, 2, 3, 4, 8, 10, 99]))
    elif len(model.opset_import):
        choices = [-1, 0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 19, 20, 21, 22, 23, 99, 2**40]
        pick(random, model.opset_import).version = int(random.choice(choices))


# Bytes


def flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        # Near the start and the end of a file is structure, between them mostly weights.
        position = int(random.integers(len(changed)))
        if random.integers(2):
            position = min(int(random.integers(600)), len(changed) - 1)
            position = position if random.integers(2) else len(changed) - 1 - position
        changed[position] ^= 1 << int(random.integers(8))
    return bytes(changed)


def truncate(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(len(content)))]


def insert_or_remove(content: bytes, random: Random) -> bytes:
    start, length = int(random.integers(len(content))), int(random.integers(1, 20))
    if random.integers(2):
        return content[:start] + content[start + length :]
    return content[:start] + random.bytes(length) + content[start:]


def repeat(content: bytes, random: Random) -> bytes:
    """The file twice: protobuf joins them to one message, every list doubled."""
    return content + (content if random.integers(2) else content[: len(content) // 2])


OF_BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip_bits,
    flip_bits,
    flip_bits,
    truncate,
    insert_or_remove,
    repeat,
)
OF_MODELS: tuple[Callable[[ModelProto, Random], None], ...] = (
    cast_tensor,
    change_arity,
    change_attribute,
    change_attribute,
    change_attribute,
    change_operator,
    change_versions,
    cut_tensor,
    duplicate_node,
    duplicate_value,
    misplace_data,
    nest,
    remove_node,
    remove_value,
    rename,
    resize_tensor,
    resize_value,
    resize_value,
    retype_tensor,
    retype_value,
    rewire,
    rewire,
    shuffle_nodes,
    spoil_attribute,
    spoil_data,
    spoil_weights,
    swap_inputs,
    swap_tensors,
)


def mutated(case: int) -> tuple[str, Files]:
    """What was done, in words, and the files."""
    random = np.random.default_rng([7, case])
    base = NAMES[case % len(NAMES)]
    files = dict(sound(base))
    if random.integers(5) == 0:
        change = OF_BYTES[int(random.integers(len(OF_BYTES)))]
        name = pick(random, files)
        files[name] = change(files[name], random)
        return f"{base}: {change.__name__}", files
    model = ModelProto.FromString(files[MODEL])
    done = []
    for _ in range(1 + (random.integers(4) == 0)):
        step = OF_MODELS[int(random.integers(len(OF_MODELS)))]
        try:
            step(model, random)
        except Exception:  # what the step before it did was too much for it
            continue
        done.append(step.__name__)
    files[MODEL] = model.SerializeToString()
    return f"{base}: {', '.join(done)}", files


if __name__ == "__main__":
    from tests.fuzz.mutation_judge import main

    main()
