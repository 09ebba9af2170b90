"""Inputs and outputs bound to memory before a run, as onnxruntime's `IOBinding` does it; all memory is the processor's."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from onnx import helper
from onnxruntime import OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from xbcompile.errors import quoted
from xbcompile.interop.faults import BindingError
from xbcompile.interop.node_args import NodeArg

_CPU = "cpu"


class Runs(Protocol):
    """What of a session a binding uses; see `InferenceSession`."""

    def get_inputs(self) -> list[NodeArg]:
        """The inputs."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: object) -> list[Any]:
        """Run the model."""


class IOBinding:
    """What a session reads and where it puts what it gives; made by `InferenceSession.io_binding`.

    Args:
        session: whose inputs and outputs are bound.
    """

    def __init__(self, session: Runs) -> None:
        self._session = session
        self._known = [value.name for value in session.get_inputs()]
        self._inputs: dict[str, Any] = {}
        self._targets: dict[str, np.ndarray | OrtValue | None] = {}
        self._results: list[Any] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Bind an array.

        Args:
            name: of the input.
            arr_on_cpu: its value; what is written into it before a run is seen.
        """
        if not isinstance(arr_on_cpu, np.ndarray):
            raise BindingError(
                f"input {quoted(name)}: a {type(arr_on_cpu).__name__} cannot be bound; give a numpy array"
            )
        self._inputs[self._input(name)] = arr_on_cpu

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Bind memory.

        Args:
            name: of the input.
            device_type: "cpu".
            device_id: not used.
            element_type: a type of numpy, or the number of ONNX's.
            shape: sizes.
            buffer_ptr: where its values lie, rows first; they must stay there until the run has ended.
        """
        self._inputs[self._input(name)] = _memory(name, device_type, element_type, shape, buffer_ptr)

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind an OrtValue.

        Args:
            name: of the input.
            ortvalue: its value.
        """
        self._inputs[self._input(name)] = ortvalue

    def bind_output(
        self,
        name: str,
        device_type: str = _CPU,
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for an output, and say where it goes.

        Args:
            name: of the output.
            device_type: "cpu".
            device_id: not used.
            element_type: of the memory.
            shape: of the memory.
            buffer_ptr: memory that takes the values; None: memory of its own.
        """
        if buffer_ptr is None:
            _check_device(name, device_type)
            self._targets[name] = None
            return
        if element_type is None or shape is None:
            raise ValueError("`element_type` and `shape` are to be provided if pre-allocated memory is provided")
        self._targets[name] = _memory(name, device_type, element_type, shape, buffer_ptr)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Ask for an output that goes into an OrtValue.

        Args:
            name: of the output.
            ortvalue: a tensor of the output's type and shape.
        """
        self._targets[name] = ortvalue

    def synchronize_inputs(self) -> None:
        """Nothing waits: all memory is the processor's."""

    def synchronize_outputs(self) -> None:
        """Nothing waits: all memory is the processor's."""

    def get_outputs(self) -> list[OrtValue]:
        """What the last run gave, in the order in which outputs were bound."""
        return [ort_value(value) for value in self._results]

    def get_outputs_as_ortvaluevector(self) -> Any:
        """The same as onnxruntime's vector."""
        found = ort.OrtValueVector()
        for each in self.get_outputs():
            found.push_back(each._get_c_value())
        return found

    def copy_outputs_to_cpu(self) -> list[Any]:
        """Copies of what the last run gave, as arrays."""
        return [np.array(value) if isinstance(value, np.ndarray) else value for value in self._results]

    def clear_binding_inputs(self) -> None:
        """Forget all inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forget all outputs, and what the last run gave."""
        self._targets.clear()
        self._results = []

    def _input(self, name: str) -> str:
        if name not in self._known:
            raise BindingError(f"the model has no input {quoted(name)}; its inputs are: {', '.join(self._known)}")
        return name

    def _run(self, run_options: Any) -> None:
        if not self._targets:
            raise BindingError("no output is bound; bind_output(NAME) asks for one")
        found = self._session.run(list(self._targets), self._inputs, run_options)
        for (name, target), value in zip(self._targets.items(), found, strict=True):
            if target is not None:
                _fill(name, target, value)
        self._results = [
            value if target is None else _array(target)
            for value, target in zip(found, self._targets.values(), strict=True)
        ]


def ort_value(value: Any) -> OrtValue:
    """A tensor as onnxruntime's value.

    Args:
        value: an output.

    Raises:
        BindingError: it is no tensor of numbers.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise BindingError(
            f"an output is a {type(value).__name__} and no tensor of numbers, and of no other an OrtValue can be made; use run"
        )
    held = OrtValue.ortvalue_from_shape_and_type(value.shape, value.dtype.type)  # memory of its own, which goes with it
    if value.size:
        held.update_inplace(np.ascontiguousarray(value))
    return held


def _array(target: np.ndarray | OrtValue) -> np.ndarray:
    return target if isinstance(target, np.ndarray) else target.numpy()


def _fill(name: str, target: np.ndarray | OrtValue, value: Any) -> None:
    held = _array(target)
    if not isinstance(value, np.ndarray) or held.shape != value.shape or held.dtype != value.dtype:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise BindingError(f"output {quoted(name)} is {found}; the memory bound for it is {held.dtype} {held.shape}")
    if isinstance(target, np.ndarray):
        target[...] = value
    else:
        target.update_inplace(np.ascontiguousarray(value))


def _memory(name: str, device_type: str, element_type: Any, shape: Sequence[int], address: int) -> np.ndarray:
    """An array over memory that the caller keeps."""
    _check_device(name, device_type)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element_type) if isinstance(element_type, int) else element_type)
    sizes = tuple(int(size) for size in shape)
    if not address and np.prod(sizes):
        raise BindingError(f"{quoted(name)}: the address of its memory is 0")
    count = int(np.prod(sizes)) * dtype.itemsize
    raw = memoryview((ctypes.c_char * count).from_address(address)) if count else memoryview(b"")
    return np.frombuffer(raw, dtype).reshape(sizes)


def _check_device(name: str, device_type: str) -> None:
    if device_type != _CPU:
        raise BindingError(
            f"{quoted(name)}: memory of {quoted(device_type)} cannot be bound; arrays are simulated on the processor: give 'cpu'"
        )
