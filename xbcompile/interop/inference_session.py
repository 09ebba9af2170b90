"""Sessions with the methods of onnxruntime's `InferenceSession`, in whose place they can stand; see docs/inference_session.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, ValueInfoProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort
from onnxruntime.capi.onnxruntime_inference_collection import check_and_normalize_provider_args

from xbcompile.api.compiling import compile as compile_model
from xbcompile.api.program import Program, load_program
from xbcompile.data.arrays import as_array, by_name
from xbcompile.errors import DataError, elided, quoted
from xbcompile.export.model import write_model
from xbcompile.export.trace import trace_events
from xbcompile.files import write_atomically
from xbcompile.interop.faults import FailedRun, InvalidInput, MissingInput, Refused
from xbcompile.interop.io_binding import IOBinding, ort_value
from xbcompile.interop.node_args import ModelMetadata, NodeArg, metadata_of, node_arg
from xbcompile.notebook import printable
from xbcompile.onnx_graph import engine
from xbcompile.program import program as inert
from xbcompile.runtime import Session
from xbcompile.targets import Device, Target

DEFAULT_TARGET = "ideal"

_PROGRAM_FILE = b"PK\x03\x04"  # how a program file, a zip archive, begins; no ONNX model begins so
_PROVIDER = "CPUExecutionProvider"  # runs digital segments, and simulates arrays
# Arguments of onnxruntime's constructor that have no effect here.
_WITHOUT_EFFECT = ("enable_fallback", "read_config_from_model", "disabled_optimizers")
_MOST_TRACED = 100  # batches in a profile; assumed


class InferenceSession:
    """A model on crossbar arrays behind the interface of `onnxruntime.InferenceSession`.

    Args:
        path_or_bytes: path of an .onnx model or of a program file, a model (ModelProto, or its bytes, or a module of torch with
            `sample=...`), or a Program.
        sess_options: onnxruntime's: `intra_op_num_threads` are worker threads, `enable_profiling` and `profile_file_prefix` give
            a trace of the arrays, `optimized_model_filepath` the program's ideal meaning. The others have no effect.
        providers: names, or pairs of a name and options, checked as onnxruntime does. The processor's simulates arrays, and runs
            what stays digital.
        provider_options: of the providers.
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
        TypeError: a target or options to compile with were given for a program, which is compiled; or session options are none.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | ModelProto | inert.Program | Any,
        sess_options: Any = None,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        *,
        target: str | os.PathLike[str] | Target | None = None,
        device: str | Device | None = None,
        seed: int = 0,
        **compile_options: Any,
    ) -> None:
        if not (sess_options is None or isinstance(sess_options, ort.SessionOptions)):
            raise TypeError(
                f"sess_options is {quoted(sess_options)}; give onnxruntime.SessionOptions() there, and a target as target=..."
            )
        self.set_providers(providers, provider_options)
        for name in _WITHOUT_EFFECT:
            compile_options.pop(name, None)
        source = _read(path_or_bytes)
        if not isinstance(source, inert.Program):
            compile_options.setdefault("embed_model", False)
            source = compile_model(source, DEFAULT_TARGET if target is None else target, **compile_options)
        elif target is not None or compile_options:
            given = ", ".join([*(["target"] if target is not None else []), *compile_options])
            raise TypeError(f"{given}: a program is compiled already, for {source.target.name!r}; give the model")
        self.program = source if isinstance(source, Program) else Program.of(source)
        self._options = ort.SessionOptions() if sess_options is None else sess_options
        self.session = Session(self.program, device, seed, threads=self._options.intra_op_num_threads or None)
        self._inputs = [node_arg(value) for value in source.network.inputs]
        self._outputs = [node_arg(value) for value in source.network.outputs]
        self._metadata = _metadata(path_or_bytes, self.program)
        self._profiled_since_ns = time.time_ns() if self._options.enable_profiling else 0
        self._profiles = bool(self._options.enable_profiling)
        if self._options.optimized_model_filepath:
            write_model(self.program, self._options.optimized_model_filepath)

    def __repr__(self) -> str:
        names = [", ".join(value.name for value in each) for each in (self._inputs, self._outputs)]
        return printable(f"<InferenceSession of {self.program!r}: {names[0] or 'nothing'} -> {names[1]}>")

    def _repr_html_(self) -> str:
        return self.program._repr_html_()

    def get_inputs(self) -> list[NodeArg]:
        """The program's inputs, in the model's order: none that has a value in the model, none that was fixed."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, in its order."""
        return list(self._outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """None: initializers are compiled in; `keep_inputs` of `xbcompile.compile` makes inputs of them."""
        return []

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself; of a program without its model, the name of the graph alone."""
        return self._metadata

    def get_session_options(self) -> Any:
        """The options given, or onnxruntime's defaults."""
        return self._options

    def get_providers(self) -> list[str]:
        """The processor's: it simulates arrays, and runs what stays digital."""
        return [_PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Options that were given for the processor's provider."""
        return {_PROVIDER: dict(self._provider_options)}

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        """Check providers as onnxruntime does, which warns of those that are not there; the processor's runs all.

        Args:
            providers: names, or pairs of a name and options.
            provider_options: of each.

        Raises:
            ValueError: they are none.
        """
        names, options = check_and_normalize_provider_args(providers, provider_options, ort.get_available_providers())
        self._provider_options = dict(zip(names, options, strict=True)).get(_PROVIDER, {})

    def enable_fallback(self) -> None:
        """Nothing: no provider fails here that another could replace."""

    def disable_fallback(self) -> None:
        """Nothing: no provider fails here that another could replace."""

    def get_input_memory_infos(self) -> list[Any]:
        """Of each input: the processor's memory."""
        return [_memory_info() for _ in self._inputs]

    def get_output_memory_infos(self) -> list[Any]:
        """Of each output: the processor's memory."""
        return [_memory_info() for _ in self._outputs]

    def get_input_epdevices(self) -> list[Any]:
        """Of each input: onnxruntime's device of the processor."""
        found = next(each for each in onnxruntime.get_ep_devices() if each.ep_name == _PROVIDER)
        return [found for _ in self._inputs]

    def get_provider_graph_assignment_info(self) -> Any:
        """Refused.

        Raises:
            Refused: always.
        """
        raise Refused(
            "nodes are not assigned to providers but to arrays; program.summary() and xbcompile.explain say what runs where"
        )

    def get_tuning_results(self) -> list[Any]:
        """None: nothing is tuned, as with onnxruntime's processor provider."""
        return []

    def set_tuning_results(self, results: Sequence[Any], *, error_on_invalid: bool = False) -> None:
        """Take no results.

        Args:
            results: must be empty.
            error_on_invalid: not used.

        Raises:
            Refused: there are some.
        """
        if len(results):
            raise Refused("tuning results are of kernels of a provider, and arrays have none; give an empty list")

    def set_ep_dynamic_options(self, options: Mapping[str, str]) -> None:
        """Take options of a provider, which the processor's does not use.

        Args:
            options: texts by text.
        """

    def release_captured_graph(self, graph_annotation_id: int = 0) -> None:
        """Nothing: no graph is captured.

        Args:
            graph_annotation_id: not used.
        """

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str, device_id: int = 0, vendor_id: int = -1
    ) -> onnxruntime.OrtValue:
        """A tensor in the processor's memory, of any values.

        Args:
            shape: sizes.
            element_type: a type of numpy, or the number of ONNX's.
            device_type: "cpu".
            device_id: see onnxruntime.
            vendor_id: see onnxruntime.

        Raises:
            RuntimeError: the memory is another's, as onnxruntime says.
        """
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id, vendor_id)

    def io_binding(self) -> IOBinding:
        """Inputs and outputs bound to memory, see `run_with_iobinding`."""
        return IOBinding(self)

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

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], None],
        user_data: Any,
        run_options: object = None,
    ) -> None:
        """Run the model in a thread of its own; runs of one session take turns.

        Args:
            output_names: see `run`.
            input_feed: see `run`.
            callback: called there with the outputs (none where the run failed), `user_data`, and the error as text, or "".
            user_data: for the callback.
            run_options: not used.

        Raises:
            DataError: an input is missing.
        """
        self._check_complete(input_feed)

        def work() -> None:
            results, said = [], ""
            try:
                results = self.run(output_names, input_feed, run_options)
            except DataError as error:
                said = str(error)
            callback(results, user_data, said)

        Thread(target=work).start()

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, onnxruntime.OrtValue],
        run_options: object = None,
    ) -> list[onnxruntime.OrtValue]:
        """Run the model on onnxruntime's values, and give such.

        Args:
            output_names: see `run`.
            input_dict_ort_values: values by input name.
            run_options: not used.

        Raises:
            DataError: see `run`, or an output is no tensor of numbers.
        """
        return [ort_value(value) for value in self.run(output_names, input_dict_ort_values, run_options)]

    def run_with_iobinding(self, iobinding: IOBinding, run_options: object = None) -> None:
        """Run the model on what is bound, into what is bound.

        Args:
            iobinding: made by this session's `io_binding`.
            run_options: not used.

        Raises:
            ValueError: it is another session's.
            DataError: see `run`; no output is bound, or its memory does not fit.
        """
        if not isinstance(iobinding, IOBinding) or iobinding._session is not self:
            raise ValueError("IOBinding must be used with the session that created it.")
        iobinding._run(run_options)

    def run_with_ortvaluevector(
        self,
        run_options: object,
        feed_names: Sequence[str],
        feeds: Sequence[Any],
        fetch_names: Sequence[str],
        fetches: Any,
        fetch_devices: Sequence[Any],
    ) -> None:
        """Run the model on a vector of onnxruntime's values; outputs are added to another one.

        Args:
            run_options: not used.
            feed_names: of inputs.
            feeds: their values, an OrtValueVector.
            fetch_names: of outputs.
            fetches: an OrtValueVector that takes them.
            fetch_devices: not used: all memory is the processor's.

        Raises:
            DataError: see `run`, or an output is no tensor of numbers.
        """
        values = [onnxruntime.OrtValue(each) for each in feeds]
        for each in self.run_with_ort_values(fetch_names, dict(zip(feed_names, values, strict=True))):
            fetches.push_back(each._get_c_value())

    def get_profiling_start_time_ns(self) -> int:
        """When a profile began, nanoseconds since 1970; 0 where `enable_profiling` did not ask for one."""
        return self._profiled_since_ns

    def end_profiling(self) -> str:
        """Write what the arrays did, as events that Chrome and Perfetto show, and give the file's name.

        Times are those of the arrays, not of the simulation: each batch that ran, at most 100, in the schedule's own time.

        Returns:
            the name, of `profile_file_prefix` and the time; "" where `enable_profiling` did not ask for a profile, or it is
            written already.

        Raises:
            ProgramError: the file cannot be written.
        """
        if not self._profiles:
            return ""
        self._profiles = False
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(self._profiled_since_ns / 1e9))
        prefix = self._options.profile_file_prefix
        path = Path(f"{prefix}_{stamp}_{self._profiled_since_ns // 1_000_000 % 1000:03}.json")
        batches = min(self.session.counters.batches, _MOST_TRACED)
        write_atomically(path, json.dumps(list(trace_events(self.program, batches))).encode())
        return str(path)

    def _check_complete(self, input_feed: Any) -> None:
        """Raise MissingInput where an input is missing."""
        needed = [value.name for value in self._inputs if not value.type.startswith("optional")]
        missing = [name for name in needed if name not in input_feed]
        if missing:
            raise MissingInput(f"model input {quoted(missing[0])} is missing; given: {elided(list(input_feed))}")


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


def _read(source: Any) -> Any:
    """A model to compile, or a program."""
    if isinstance(source, str | os.PathLike) and _is_program_file(Path(source)):
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


def _metadata(source: Any, program: Program) -> ModelMetadata:
    """What the model says of itself, where it is at hand."""
    if isinstance(source, ModelProto):
        return metadata_of(source)
    if isinstance(source, bytes):
        return metadata_of(ModelProto.FromString(source))
    if isinstance(source, str | os.PathLike) and not _is_program_file(Path(source)):
        return metadata_of(onnx.load(source, load_external_data=False))
    if program.source is not None:
        return metadata_of(program.source.skeleton)
    return ModelMetadata(graph_name=program.network.name)


def _memory_info() -> Any:
    return ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
