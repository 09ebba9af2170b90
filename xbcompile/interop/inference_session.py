"""Sessions with the methods of onnxruntime's `InferenceSession`, in whose place they can stand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import ModelProto, TypeProto, ValueInfoProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from xbcompile.api import compile as compile_model
from xbcompile.data.arrays import as_array, by_name
from xbcompile.errors import DataError, ModelError, elided, quoted
from xbcompile.frontend.load import parsed
from xbcompile.onnx_graph import engine
from xbcompile.program.program import Program, load_program
from xbcompile.runtime import Session
from xbcompile.targets import Device, Target

DEFAULT_TARGET = "ideal"

_PROGRAM_FILE = b"PK\x03\x04"  # how a program file, a zip archive, begins; no ONNX model begins so


@dataclass(frozen=True)
class NodeArg:
    """A model input or output as onnxruntime describes it.

    Args:
        name: its name.
        type: onnxruntime's notation: `tensor(float)`, `seq(tensor(int64))`, `map(int64,tensor(float))`.
        shape: sizes of a tensor: a number, the name of a symbolic dimension, or None; [] for scalars, for unknown ranks
            and for what is no tensor, nor an optional one.
    """

    name: str
    type: str
    shape: list[int | str | None]


class InferenceSession:
    """A model on crossbar arrays behind the interface of `onnxruntime.InferenceSession`.

    Args:
        path_or_program: path of an .onnx model or of a program file, a model (ModelProto, or its bytes), or a Program.
        target: what to compile a model for, see `xbcompile.compile`; None takes the exact target `ideal`. A program has
            its target already.
        device: a device name of the target, a Device, or None for the target's default.
        seed: which simulated chip.
        **compile_options: further options of `xbcompile.compile`. The model is not embedded in the program unless
            `embed_model=True` asks for it.

    Attributes:
        program: what runs.
        session: the `xbcompile.Session` that runs it, with its counters.

    Raises:
        XbcompileError: the model or program cannot be read or compiled, or the target has no such device.
        TypeError: a target or options to compile with were given for a program, which is compiled.
    """

    def __init__(
        self,
        path_or_program: str | os.PathLike[str] | bytes | ModelProto | Program,
        target: str | os.PathLike[str] | Target | None = None,
        device: str | Device | None = None,
        seed: int = 0,
        **compile_options: Any,
    ) -> None:
        source = _read(path_or_program)
        if not isinstance(source, Program):
            compile_options.setdefault("embed_model", False)
            source = compile_model(source, DEFAULT_TARGET if target is None else target, **compile_options)
        elif target is not None or compile_options:
            given = ", ".join([*(["target"] if target is not None else []), *compile_options])
            raise TypeError(f"{given}: a program is compiled already, for {source.target.name!r}; give the model")
        self.program = source
        self.session = Session(source, device, seed)
        self._inputs = [_node_arg(value) for value in source.network.inputs]
        self._outputs = [_node_arg(value) for value in source.network.outputs]

    def get_inputs(self) -> list[NodeArg]:
        """The program's inputs, in the model's order: none that has a value in the model, none that was fixed."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, in its order."""
        return list(self._outputs)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: object = None,
        *,
        first_sample: int | None = None,
    ) -> list[Any]:
        """Run the model once on exactly these inputs; nothing is split into chunks. Every run has noise of its own.

        Args:
            output_names: which outputs, in which order; None or none: all.
            input_feed: inputs by name, of the types that onnxruntime takes: arrays (also an OrtValue, a number, a nested
                list), lists of arrays for sequences, dicts for maps, None for an optional without a value.
            run_options: taken for the sake of the interface, and not used.
            first_sample: number of the first sample in the session's life, which noise depends on; None goes on behind the
                last, see `xbcompile.Session.run`.

        Returns:
            the outputs.

        Raises:
            DataError: an output that the model does not have, a missing or unknown input, one of another type or shape, or
                one on which onnxruntime cannot run the model. It is also what onnxruntime raises: `InvalidInput` an
                InvalidArgument, `MissingInput` a ValueError, `FailedRun` a Fail and a RuntimeException.
        """
        known = [value.name for value in self._outputs]
        names = list(_output_names(output_names, known)) or known
        inputs = {value.name: value for value in self.program.network.inputs}
        optional = [name for name, value in inputs.items() if value.type.HasField("optional_type")]
        given: dict[str, Any] = {}
        try:
            given = by_name(input_feed, [name for name in inputs if name not in optional], "inputs")
            feeds = {name: _fed(inputs[name], value) if name in inputs else value for name, value in given.items()}
            outputs = self.session.run(dict.fromkeys(optional) | feeds, first_sample)
        except DataError as error:
            raise _as_onnxruntime(error, missing=not set(inputs) - set(optional) <= set(given)) from error
        return [outputs[name] for name in names]


class InvalidInput(DataError, ort.InvalidArgument):
    """An input or output that the model does not have, or an input of another type or shape."""


class MissingInput(DataError, ValueError):
    """An input is missing."""


class FailedRun(DataError, ort.Fail, ort.RuntimeException):
    """onnxruntime cannot run the model on these inputs."""


def _as_onnxruntime(error: DataError, missing: bool) -> DataError:
    """The error as one of the kind that onnxruntime's session raises."""
    if isinstance(error, engine.NotRun) or isinstance(error.__cause__, engine.NotRun):
        return FailedRun(str(error))
    return MissingInput(str(error)) if missing else InvalidInput(str(error))


def _output_names(names: Any, known: list[str]) -> Iterable[str]:
    if names is None:
        return ()
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidInput(f"the outputs wanted are {quoted(names)}; give a list of names, of: {elided(known)}")
    names = list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"the model has no output {quoted(unknown[0])}; its outputs are: {elided(known)}")
    return names


def _read(
    source: str | os.PathLike[str] | bytes | ModelProto | Program,
) -> str | os.PathLike[str] | ModelProto | Program:
    """A model to compile, or a program."""
    if isinstance(source, bytes):
        try:
            return parsed(source, "the model")
        except DecodeError:
            raise ModelError(
                f"the {len(source)} bytes are not an ONNX model, or a truncated one; give what SerializeToString returns"
            ) from None
    if isinstance(source, (str, os.PathLike)) and _is_program_file(Path(source)):
        return load_program(source)
    return source


def _is_program_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_PROGRAM_FILE)) == _PROGRAM_FILE
    except OSError:
        return False  # loading it as a model says what is wrong


def _fed(wanted: ValueInfoProto, value: Any) -> Any:
    """A feed as onnxruntime takes it: what has a type must have the model's, and numbers in lists take it.

    Raises:
        DataError: they do not fit that type, or lists are of different lengths.
    """
    if isinstance(value, onnxruntime.OrtValue) and value.is_tensor():
        value = value.numpy()
    kind = wanted.type.tensor_type
    if value is None or isinstance(value, Mapping) or not wanted.type.HasField("tensor_type") or not kind.elem_type:
        return value
    array = as_array(value, f"input {quoted(wanted.name)}")
    if kind.elem_type == onnx.TensorProto.STRING:
        return array if isinstance(value, np.ndarray) or array.dtype.kind not in "SU" else array.astype(object)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if not array.size and not hasattr(value, "dtype"):
        return array.astype(dtype)
    if hasattr(value, "dtype") and array.dtype.newbyteorder("=") != dtype:
        raise DataError(f"input {quoted(wanted.name)} has type {array.dtype}; the model wants {dtype}")
    return array  # the session converts it


def _node_arg(value: ValueInfoProto) -> NodeArg:
    inner = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    shape = inner.tensor_type.shape.dim if inner.HasField("tensor_type") else []
    sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in shape]
    return NodeArg(value.name, _type_text(value.type), sizes)


def _type_text(type_proto: TypeProto) -> str:
    """A type in onnxruntime's notation, empty where it is not known; `frontend.engine.type_proto` reads it back."""
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        return f"seq({_type_text(type_proto.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({_type_text(type_proto.optional_type.elem_type)})"
    if kind == "map_type":
        return f"map({_element_text(type_proto.map_type.key_type)},{_type_text(type_proto.map_type.value_type)})"
    if kind == "sparse_tensor_type":
        return f"sparse_tensor({_element_text(type_proto.sparse_tensor_type.elem_type)})"
    return f"tensor({_element_text(type_proto.tensor_type.elem_type)})" if kind == "tensor_type" else ""


def _element_text(element_type: int) -> str:
    return onnx.TensorProto.DataType.Name(element_type).lower()
