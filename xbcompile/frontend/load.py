"""Reading a model: from a file with its external data or from memory, to a checked, self-contained ModelProto."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx.version_converter
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import ModelProto, TensorProto

from xbcompile.errors import ModelError
from xbcompile.frontend import engine
from xbcompile.frontend.graph import ONNX_DOMAINS, from_model, skeleton
from xbcompile.frontend.tensors import check_sizes, model_tensors
from xbcompile.ir.host import OLDEST_OPSET

_CONVERTED_OPSET = 13


def load_model(source: str | os.PathLike[str] | ModelProto) -> ModelProto:
    """Read and check a model; its external data is read into it.

    The result's IR version is one that the installed onnxruntime reads, its opset one that the host graph can be written
    in (older ones are converted).

    Raises:
        ModelError: the file is missing or no ONNX model, its external data is missing or outside its folder, a version
            is not supported, or onnx finds the model invalid.
    """
    if isinstance(source, ModelProto):
        model, where, folder = source, "the model", None
    else:
        path = Path(source)
        model, where, folder = _read(path), str(path), path.parent
    if not model.HasField("graph"):
        raise ModelError(f"{where}: no graph in it, so it is not an ONNX model; export it as .onnx (binary protobuf)")
    _check_versions(model, where)
    _load_external_data(model, where, folder)
    check_sizes(model, where)
    _check_model(model, where)
    model = _modernized(model, where)
    if model.ir_version <= engine.newest_ir_version():
        return model
    readable = ModelProto()
    readable.CopyFrom(model)
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
    opsets = [entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS]
    oldest, newest = engine.OLDEST_OPSET, engine.newest_opset()
    for opset in opsets:
        if not oldest <= opset <= newest:
            raise ModelError(
                f"{where}: opset {opset} is not supported (allowed: {oldest} to {newest}); convert the model with "
                f"onnx.version_converter.convert_version, or export it with another opset"
            )


def _load_external_data(model: ModelProto, where: str, folder: Path | None) -> None:
    for tensor in model_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise ModelError(
                f'{where}: tensor "{tensor.name}" is external data, whose folder a model in memory does not tell; '
                f"pass the path of the file, or load it with onnx.load"
            )
        tensor.raw_data = _read_external(tensor, where, folder)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _read_external(tensor: TensorProto, where: str, folder: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f'{where}: external data "{entries.get("location", "")}" of tensor "{tensor.name}"'
    target = (folder / entries.get("location", "")).resolve()
    if not target.is_relative_to(folder.resolve()) or os.path.isabs(entries.get("location", "")):
        raise ModelError(f"{what} lies outside the model's folder; put the file beside the model")
    if not target.is_file():
        raise ModelError(f"{what} is missing; put the file beside the model, under the name it was exported with")
    size = target.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError as error:
        raise ModelError(f"{what} has a malformed offset or length; export the model again") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{what}: bytes {offset} to {offset + length} are asked for, but the file has {size}; it is truncated or "
            f"belongs to another model"
        )
    with target.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _check_model(model: ModelProto, where: str) -> None:
    checked = skeleton(from_model(model), outputs=True)
    for value in (*checked.graph.input, *checked.graph.output):
        # onnxruntime runs models whose inputs or outputs lack a type or shape, the checker rejects them.
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(checked)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{where}: not a valid ONNX model: {engine.one_line(error)}") from error


def _modernized(model: ModelProto, where: str) -> ModelProto:
    """The model in an opset that has the operators of the host graph's functions; as it is where it has them."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), OLDEST_OPSET)
    if opset >= OLDEST_OPSET:
        return model
    try:
        converted: ModelProto = onnx.version_converter.convert_version(model, _CONVERTED_OPSET)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ModelError(
            f"{where}: opset {opset} is too old to compile (allowed: {OLDEST_OPSET} or newer), and onnx cannot convert "
            f"it to {_CONVERTED_OPSET}: {engine.one_line(error)}; export the model with a newer opset"
        ) from error
    return converted
