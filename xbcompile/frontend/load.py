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
from xbcompile.frontend.dims import fix_dimensions
from xbcompile.frontend.inputs import AS_THEY_ARE, ModelInputs, settled, with_fixed_inputs
from xbcompile.frontend.soundness import check_soundness
from xbcompile.frontend.standard import with_known_domains
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import SKELETON_BYTES, Graph, from_model, skeleton
from xbcompile.onnx_graph.tensors import check_sizes, model_tensors, size_bytes, stored_bytes
from xbcompile.reference.host_graph import OLDEST_OPSET

_LARGEST_MESSAGE = 2**31 - 1  # protobuf's limit

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
    _check_versions(model, where)
    _check_names(model, where)
    model = with_known_domains(settled(model, inputs))
    _load_external_data(model, where, folder)
    check_sizes(model, where)
    _check_model(model, where)
    model = with_fixed_inputs(fix_dimensions(_modernized(model, where), inputs.dims), inputs.fixed)
    if model.ir_version <= engine.newest_ir_version():
        return model
    readable = copied(model)
    readable.ir_version = engine.newest_ir_version()
    return readable


def _read(path: Path) -> ModelProto:
    if not path.exists():
        raise ModelError(f"{path}: no such file; check the path of the model")
    if not path.is_file():
        raise ModelError(f"{path}: not a file; give the path of an .onnx file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise ModelError(f"{path}: the file is empty; export or download the model again")
    try:
        return ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one ({len(content)} bytes); export or download it again"
        ) from error


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


def _load_external_data(model: ModelProto, where: str, folder: Path | None) -> None:
    for tensor in model_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise ModelError(
                f'{where}: tensor "{tensor.name}" is external data, whose folder a model in memory does not tell; '
                f"pass the path of the file, or load it with onnx.load"
            )
        if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
            continue  # refused with all other faults of content
        tensor.raw_data = _read_external(tensor, where, folder)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _read_external(tensor: TensorProto, where: str, folder: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f'{where}: external data "{entries.get("location", "")}" of tensor "{tensor.name}"'
    try:
        target = (folder / entries.get("location", "")).resolve()
        if not target.is_relative_to(folder.resolve()) or os.path.isabs(entries.get("location", "")):
            raise ModelError(f"{what} lies outside the model's folder; put the file beside the model")
        if not target.is_file():
            raise ModelError(f"{what} is missing; put the file beside the model, under the name it was exported with")
        size = target.stat().st_size
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a ring of links, a zero byte
        raise ModelError(f"{what} has no name that a file can have ({error}); export the model again") from error
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", 0)) or max(0, min(stored_bytes(tensor), size - offset))  # 0: not given
    except ValueError as error:
        raise ModelError(f"{what} has a malformed offset or length; export the model again") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{what}: bytes {offset} to {offset + length} are asked for, but the file has {size}; it is truncated or "
            f"belongs to another model"
        )
    try:
        with target.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise ModelError(f"{what} cannot be read: {error.strerror}") from error


def _check_model(model: ModelProto, where: str) -> None:
    checked = skeleton(_large_constants_lifted(from_model(model)), outputs=True)
    try:
        size = checked.ByteSize()
    except (EncodeError, ValueError):
        size = _LARGEST_MESSAGE
    if size >= _LARGEST_MESSAGE:
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
