"""Reading a model: from a file with its external data or from memory, to a checked, self-contained ModelProto."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.version_converter
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import AttributeProto, ModelProto, TensorProto

from xbcompile.errors import ModelError
from xbcompile.frontend.calls import check_calls
from xbcompile.frontend.dims import fix_dimensions
from xbcompile.frontend.external_data import load_external_data
from xbcompile.frontend.inputs import AS_THEY_ARE, ModelInputs, settled, with_fixed_inputs
from xbcompile.frontend.soundness import MOST_PARTS, check_bodies, check_soundness, too_many_parts
from xbcompile.frontend.standard import with_known_domains
from xbcompile.frontend.wire import has_more_messages
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.builder import LARGEST_MESSAGE, copied, size_of
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import SKELETON_BYTES, Graph, from_model, skeleton
from xbcompile.onnx_graph.tensors import check_sizes, size_bytes
from xbcompile.reference.host_graph import OLDEST_OPSET

# What onnx's checker says of operators that onnxruntime adds to ONNX's own domain, as SimplifiedLayerNormalization, and of
# that domain's other name.
_KNOWN_TO_ONNXRUNTIME = ("No Op registered for", "No opset import for domain 'ai.onnx'")


def load_model(source: str | os.PathLike[str] | ModelProto, inputs: ModelInputs = AS_THEY_ARE) -> ModelProto:
    """Read and check a model; its external data is read into it, so that it may be too large to be serialised.

    The result's IR version is one that the installed onnxruntime reads, its opset one that the host graph (the ideal
    meaning of the compiled program as an ONNX model) can be written in (older ones are converted, where onnxruntime runs them).
    None of its inputs has an initializer.

    Args:
        source: path of an .onnx file, or a model in memory, which is not changed.
        inputs: what becomes of its inputs.

    Raises:
        ModelError: the file is missing or no ONNX model, its external data is missing or outside its folder, a version
            is not supported, onnx finds the model invalid, or `inputs` do not fit it.
    """
    if isinstance(source, ModelProto):
        model, where, folder = source, "the model", None
    else:
        path = Path(source)
        model, where, folder = _read(path), str(path), path.parent
    if not model.HasField("graph"):
        raise ModelError(f"{where}: no graph in it, so it is not an ONNX model; export it as .onnx (binary protobuf)")
    check_soundness(model, where)
    check_bodies([*model.graph.node, *(node for each in model.functions for node in each.node)], where)
    check_calls(model, where)
    _check_versions(model, where)
    _check_names(model, where)
    model = with_known_domains(settled(model, inputs))
    load_external_data(model, where, folder)
    check_sizes(model, where)
    _check_model(model, where)
    model = with_fixed_inputs(fix_dimensions(_modernized(model, where), inputs.dims), inputs.fixed)
    if model.ir_version <= engine.newest_ir_version():
        return model
    readable = copied(model)
    readable.ir_version = engine.newest_ir_version()
    return readable


def parsed(content: bytes, where: str) -> ModelProto:
    """The model that a file holds.

    Raises:
        DecodeError: the content is no such message.
        ModelError: it holds more parts than are read.
    """
    if has_more_messages(content, ModelProto.DESCRIPTOR, MOST_PARTS):
        raise too_many_parts(where)
    return ModelProto.FromString(content)


def _read(path: Path) -> ModelProto:
    content = _content(path)
    if not content:
        raise ModelError(f"{path}: the file is empty; export or download the model again")
    try:
        return parsed(content, str(path))
    except DecodeError as error:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one ({len(content)} bytes); export or download it again"
        ) from error


def _content(path: Path) -> bytes:
    try:
        if not path.exists():
            raise ModelError(f"{path}: no such file; check the path of the model")
        if not path.is_file():
            raise ModelError(f"{path}: not a file; give the path of an .onnx file")
        size = path.stat().st_size
        if size > LARGEST_MESSAGE:
            raise ModelError(
                f"{path}: it has {size:,} bytes, and an ONNX file at most {LARGEST_MESSAGE:,}; export the model with its "
                f"weights as external data"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # the latter of names that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: cannot be read: {reason}") from error


def _check_versions(model: ModelProto, where: str) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{where}: IR version {model.ir_version} is newer than onnx {onnx.__version__} reads (at most "
            f"{onnx.IR_VERSION}); upgrade onnx, or export the model for an older one"
        )
    newest = engine.newest_opset()
    for entry in model.opset_import:
        if entry.domain in ONNX_DOMAINS and not 1 <= entry.version <= newest:
            raise _unsupported_opset(where, entry.version)


def _unsupported_opset(where: str, opset: int, reason: str = "") -> ModelError:
    return ModelError(
        f"{where}: opset {opset} is not supported (allowed: {OLDEST_OPSET} to {engine.newest_opset()}){reason}; convert the "
        f"model with onnx.version_converter.convert_version, or export it with another opset"
    )


def _check_names(model: ModelProto, where: str) -> None:
    """Two initializers of one name would leave open which is meant."""
    names = [tensor.name for tensor in model.graph.initializer]
    names += [sparse.values.name for sparse in model.graph.sparse_initializer]
    name, count = max(Counter(names).items(), key=lambda entry: entry[1], default=("", 0))
    if count > 1:
        raise ModelError(f'{where}: {count} initializers have the name "{name}"; names must be unique: export it again')


def _check_model(model: ModelProto, where: str) -> None:
    checked = skeleton(_large_constants_lifted(from_model(model)), outputs=True)
    if size_of(checked) >= LARGEST_MESSAGE:
        raise ModelError(
            f"{where}: its nodes and their bodies alone take 2 GiB or more, which no protobuf message may; store the "
            f"tensors as initializers of the main graph"
        )
    for value in (*checked.graph.input, *checked.graph.output):
        # onnxruntime runs models whose inputs or outputs lack a type or shape, the checker rejects them.
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(checked)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        if any(text in str(error) for text in _KNOWN_TO_ONNXRUNTIME) and engine.can_load(checked):
            return
        raise ModelError(f"{where}: not a valid ONNX model: {engine.one_line(error)}") from error


def _large_constants_lifted(graph: Graph) -> Graph:
    """The graph with large tensors of Constant nodes as constants, which are no part of a skeleton."""
    nodes, constants = [], dict(graph.constants)
    for node in graph.nodes:
        value = node.attribute[0] if len(node.attribute) == len(node.output) == 1 else AttributeProto()
        is_constant = node.op_type == "Constant" and node.domain in ONNX_DOMAINS and value.name == "value"
        if is_constant and value.HasField("t") and size_bytes(value.t) > SKELETON_BYTES:
            constants[node.output[0]] = value.t
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _modernized(model: ModelProto, where: str) -> ModelProto:
    """The model in an opset that has the operators of the host graph's functions; as it is where it has them.

    Raises:
        ModelError: onnxruntime does not run the model, or onnx cannot convert it.
    """
    opset = min((e.version for e in model.opset_import if e.domain in ONNX_DOMAINS), default=OLDEST_OPSET)
    if opset >= OLDEST_OPSET:
        return model
    try:
        engine.open_session(model, optimized=False)
        listed = copied(model)  # as of this IR version, onnx's converter knows initializers that are no graph inputs
        listed.ir_version = max(listed.ir_version, engine.OLDEST_IR_VERSION)
        converted: ModelProto = onnx.version_converter.convert_version(listed, OLDEST_OPSET)
        engine.open_session(converted, optimized=False)
    except (*engine.ERRORS, EncodeError, RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        raise _unsupported_opset(where, opset, f", and it cannot be converted: {engine.one_line(error)}") from error
    return converted
