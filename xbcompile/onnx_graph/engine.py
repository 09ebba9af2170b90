"""What the installed onnxruntime reads and says: versions, sessions, types of values that onnx cannot infer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import TypeProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from xbcompile.errors import DataError, ModelError
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.domains import XBCOMPILE
from xbcompile.onnx_graph.nodes import operator_types
from xbcompile.onnx_graph.split_model import SplitModel, is_apart, split, stored_bytes

RAW_ERRORS: tuple[type[Exception], ...] = (
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
    RuntimeError,  # where it cannot take a value, say a dict for a sequence
    MemoryError,
)


class NotLoaded(ModelError):
    """onnxruntime does not load a model.

    Attributes:
        reason: what it says, in one line.
        kind: its own class of the error.
    """

    def __init__(self, message: str, reason: str = "", kind: type[BaseException] = Exception) -> None:
        super().__init__(message)
        self.reason, self.kind = reason or message, kind


class NotRun(DataError):
    """onnxruntime does not run a model on the inputs that it is given; `reason`: what it says, in one line."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


# What sessions raise, and nothing else.
ERRORS: tuple[type[Exception], ...] = (NotLoaded, NotRun)

HEAVY_BYTES = 2**24  # assumed: below, one message is as good as a split model

PROBE_SECONDS = 10.0  # assumed: models that take longer on a few random samples are not waited for

# Assumed: what such a run may take, and how many times the bytes of the model's own tensors in addition: weights of one byte as
# floats, in two layouts, are half of that.
PROBE_BYTES = 2**31
PROBE_BYTES_PER_BYTE = 16

OLDEST_OPSET = 7  # what onnxruntime guarantees
OLDEST_IR_VERSION = 4  # the first in which an initializer need not be a graph input

_AS_REQUESTED = 1  # how onnxruntime's memory grows: by what is asked for
_registering = threading.Lock()

_ENDED_BY_EMPTY = frozenset({"DynamicQuantizeLSTM", "GRU", "LSTM"})  # onnxruntime 1.32 ends the process on empty inputs

_DISABLED_OPTIMIZERS = [
    "MatmulTransposeFusion"
]  # crashes onnxruntime 1.32 on Transpose, Cast (any type to float), MatMul

# onnxruntime spells element types as onnx does, in lower case.
_ELEMENT_TYPES = {name.lower(): number for name, number in onnx.TensorProto.DataType.items()}


def one_line(error: BaseException) -> str:
    """The text of an error of onnx or onnxruntime on one line."""
    if isinstance(error, (NotLoaded, NotRun)):
        return error.reason
    return " ".join(str(error).split()) or ("it needs more memory than there is" * isinstance(error, MemoryError))


class EngineSession:
    """A session of onnxruntime: all that a caller of it needs, with errors that say what to do about them.

    Args:
        session: onnxruntime's own.
        operators: types of all operators of the model.
    """

    def __init__(self, session: onnxruntime.InferenceSession, operators: Set[str] = frozenset()) -> None:
        self._session = session
        self._needs_values = sorted(_ENDED_BY_EMPTY & operators)

    def get_inputs(self) -> list[onnxruntime.NodeArg]:
        """See onnxruntime."""
        inputs: list[onnxruntime.NodeArg] = self._session.get_inputs()
        return inputs

    def get_outputs(self) -> list[onnxruntime.NodeArg]:
        """See onnxruntime."""
        outputs: list[onnxruntime.NodeArg] = self._session.get_outputs()
        return outputs

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, Any], options: onnxruntime.RunOptions | None = None
    ) -> list[Any]:
        """See onnxruntime.

        Raises:
            NotRun: onnxruntime refuses the inputs, or cannot compute the outputs.
        """
        if self._needs_values:
            self._check_values(feeds)
        try:
            outputs: list[Any] = self._session.run(names, feeds, options)
            return outputs
        except RAW_ERRORS as error:
            reason = one_line(error)
            raise NotRun(f"onnxruntime cannot run the model on these inputs: {reason}", reason) from error

    def _check_values(self, feeds: Mapping[str, Any]) -> None:
        empty = next((name for name, value in feeds.items() if getattr(value, "size", 1) == 0), None)
        if empty is not None:
            operators = ", ".join(self._needs_values)
            reason = (
                f'tensor "{empty}" is empty, and {operators} takes no empty batch or sequence; give one sample at least'
            )
            raise NotRun(f"onnxruntime cannot run the model on these inputs: {reason}", reason)


def open_session(
    model: onnx.ModelProto | SplitModel,
    *,
    optimized: bool = True,
    threads: int = 0,
    once: bool = False,
    pooled: bool = True,
    memory_bytes: int = 0,
) -> EngineSession:
    """The one way to a session: on the CPU, without printing warnings; large initializers are handed over as arrays.

    Args:
        model: the model.
        optimized: let onnxruntime rewrite the graph; otherwise it runs as it stands.
        threads: worker threads of one node; 0 leaves the number to onnxruntime.
        once: the session is run once or twice: what depends on constants alone is computed in the run, and no copy of
            weights is kept between runs. It takes less memory, and results may differ in rounding.
        pooled: keep the memory of a run for the next, for as many bytes as the largest run took.
        memory_bytes: what runs may take beside their inputs, see `probe_bytes`; 0: all that there is.

    Raises:
        NotLoaded: onnxruntime does not load the model.
    """
    if isinstance(model, onnx.ModelProto):
        heavy = sum(stored_bytes(tensor) for tensor in model.graph.initializer) > HEAVY_BYTES
        model = split(model) if heavy else SplitModel(model, {})
    # onnxruntime would round a layer's bias to the grids of the quantizers around it.
    quantizers = all(function.domain != XBCOMPILE for function in model.skeleton.functions)
    options = partial(_options, optimized, threads, once, pooled)
    open_it = partial(_session, model, once=once, memory_bytes=memory_bytes)
    try:
        return open_it(options(quantizers))
    except NotLoaded as error:
        if (
            error.kind is ort.NotImplemented
        ):  # its rewriting for precision knows no int8 inputs; or it has no kernel at all
            return open_it(options(quantizers, precise=False))
        if error.kind is ort.InvalidGraph and quantizers:  # its own rewriting of them uses Round, which opset 10 lacks
            return open_it(options(quantizers=False))
        raise


def probe_bytes(model: onnx.ModelProto | SplitModel) -> int:
    """What a run of a model on a few random samples may take: in proportion to the model, beside a fixed amount."""
    skeleton, apart = (model.skeleton, model.tensors) if isinstance(model, SplitModel) else (model, {})
    own = sum(stored_bytes(tensor) for tensor in skeleton.graph.initializer if tensor.name not in apart)
    return PROBE_BYTES + PROBE_BYTES_PER_BYTE * (own + sum(array.nbytes for array in apart.values()))


def run_limited(
    session: EngineSession, wanted: list[str], feeds: dict[str, Any], seconds: float | None = None
) -> list[Any]:
    """One run, ended with an error of onnxruntime's after a while: with random inputs a loop may go on for ever.

    Args:
        session: the session.
        wanted: names of outputs.
        feeds: inputs by name.
        seconds: so long; None: `PROBE_SECONDS`.
    """
    options = onnxruntime.RunOptions()
    timer = threading.Timer(PROBE_SECONDS if seconds is None else seconds, setattr, (options, "terminate", True))
    timer.start()
    try:
        return session.run(wanted, feeds, options)
    finally:
        timer.cancel()


def _options(
    optimized: bool, threads: int, once: bool, pooled: bool, quantizers: bool, precise: bool = True
) -> onnxruntime.SessionOptions:  # fmt: skip
    """`quantizers`: whether onnxruntime may put integer kernels in the place of quantizers and what lies between."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Idle workers of onnxruntime would spin on the processors that matrix layers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Processors without VNNI would saturate sums of products of two bytes at 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1" if precise else "0")
    options.add_session_config_entry("session.disable_quant_qdq", "0" if quantizers else "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if once:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = pooled and not once
    return options


def _session(
    model: SplitModel, options: onnxruntime.SessionOptions, once: bool, memory_bytes: int
) -> EngineSession:  # fmt: skip
    try:
        operators = operator_types(model.skeleton)
        if not memory_bytes:
            return EngineSession(_opened(model, options, once), operators)
        options.add_session_config_entry("session.use_env_allocators", "1")
        with _allocator(memory_bytes):
            return EngineSession(_opened(model, options, once), operators)
    except (*RAW_ERRORS, EncodeError, ValueError) as error:  # the latter two of messages that are too large
        reason = one_line(error)
        raise NotLoaded(f"onnxruntime cannot load the model: {reason}", reason, type(error)) from error


def _opened(model: SplitModel, options: onnxruntime.SessionOptions, once: bool) -> onnxruntime.InferenceSession:
    apart = [tensor for tensor in model.skeleton.graph.initializer if is_apart(tensor)]
    if apart:
        values = [_value(model.tensors[tensor.name], tensor.data_type) for tensor in apart]
        options.add_external_initializers([tensor.name for tensor in apart], values)
    return onnxruntime.InferenceSession(
        model.skeleton.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[*_DISABLED_OPTIMIZERS, *(["ConstantFolding"] if once else [])],
    )


@contextmanager
def _allocator(memory_bytes: int) -> Iterator[None]:
    """Give a memory of its own, of so many bytes, to the session that is opened meanwhile: it goes when the session does."""
    with _registering:
        _register_allocator(memory_bytes)
        try:
            yield
        finally:
            _register_allocator(0)  # an empty one in its place, without a limit


def _register_allocator(memory_bytes: int) -> None:
    about = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = ort.OrtArenaCfg({"max_mem": memory_bytes, "arena_extend_strategy": _AS_REQUESTED})
    ort.create_and_register_allocator(about, settings)


def _value(array: np.ndarray, element_type: int) -> onnxruntime.OrtValue:
    array = np.ascontiguousarray(array)
    if array.dtype.isbuiltin == 1:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(f"u{array.itemsize}")  # bfloat16 and the 8-bit floats, which numpy itself does not have
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, element_type)


def can_load(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime finds a kernel for every node of the model."""
    try:
        open_session(model, optimized=False)
    except NotLoaded:
        return False
    return True


@cache
def newest_ir_version() -> int:
    """The newest IR version that both onnx and onnxruntime read."""
    versions = range(onnx.IR_VERSION, OLDEST_IR_VERSION, -1)
    return next((v for v in versions if _reads(v, OLDEST_OPSET)), OLDEST_IR_VERSION)


@cache
def newest_opset() -> int:
    """The newest opset of the ONNX domain that both onnx and onnxruntime read."""
    versions = range(onnx.defs.onnx_opset_version(), OLDEST_OPSET, -1)
    return next((v for v in versions if _reads(OLDEST_IR_VERSION, v)), OLDEST_OPSET)


def _reads(ir_version: int, opset: int) -> bool:
    values = [[builder.value(name, onnx.TensorProto.FLOAT, [1])] for name in ("x", "y")]
    graph = builder.make_graph("probe", [helper.make_node("Identity", ["x"], ["y"])], *values)
    try:
        open_session(builder.make_model(graph, [("", opset)], ir_version), optimized=False)
    except NotLoaded:
        return False
    return True


def value_types(model: onnx.ModelProto | SplitModel, names: Iterable[str]) -> dict[str, TypeProto]:
    """The types that onnxruntime gives to values inside the model, which is changed: they become its outputs."""
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    del graph.output[:]
    graph.output.extend(map(builder.value, names))
    outputs = open_session(model, optimized=False).get_outputs()
    # onnxruntime says [] of a scalar and of an unknown shape alike.
    return {value.name: type_proto(value.type, value.shape or None) for value in outputs}


def type_proto(text: str, shape: list[int | str | None] | None) -> TypeProto:
    """The TypeProto of onnxruntime's notation: `tensor(float)`, `seq(tensor(int64))`, `map(int64,tensor(float))`."""
    kind, _, inner = text.removesuffix(")").partition("(")
    if kind == "seq":
        return helper.make_sequence_type_proto(type_proto(inner, None))
    if kind == "optional":
        return helper.make_optional_type_proto(type_proto(inner, None))
    if kind == "map":
        key, _, value = inner.partition(",")
        return helper.make_map_type_proto(_ELEMENT_TYPES[key], type_proto(value, None))
    if kind == "sparse_tensor":
        return helper.make_sparse_tensor_type_proto(_ELEMENT_TYPES[inner], shape)
    return helper.make_tensor_type_proto(_ELEMENT_TYPES[inner], shape)
