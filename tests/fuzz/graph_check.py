"""Compiling one random graph, running it and comparing it with onnxruntime; and making one that fails smaller."""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import xbcompile
from tests.fuzz.graph_builder import captured, open_session, run_model, value_info
from xbcompile import InferenceSession
from xbcompile.errors import XbcompileError
from xbcompile.program.program import load_program
from xbcompile.targets import load_target

SECONDS = 60  # longer is a hang
NOTES = ("optimizer", "steps")  # reported, but not wrong


@dataclass(frozen=True)
class Case:
    """A model, what to feed it, and what must hold.

    Args:
        model: the model.
        feeds: its inputs.
        errors: by output, how far a right answer may be from onnxruntime's.
        must_lower: nodes that the compiler must put on arrays, with their operators.
        array: rows and columns of the target's arrays.
        reload: also save and load the program.
        again: also import twice and compare the programs' digests.
    """

    model: onnx.ModelProto
    feeds: dict[str, Any]
    errors: dict[str, float]
    must_lower: dict[str, str] = field(default_factory=dict)
    array: tuple[int, int] = (64, 64)
    reload: bool = False
    again: bool = False


@dataclass(frozen=True)
class Failure:
    """What is wrong: the kind is stable while a case is reduced."""

    kind: str
    message: str


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, its bodies included."""
    return [name for name in [*node.input, *captured(node)] if name]


def alive(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs need."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]


def check(case: Case) -> Failure | None:
    """Compile, run and compare; None when all is right."""
    try:
        expected = run_model(case.model, case.feeds)
    except Exception as error:  # onnxruntime has many
        return check_refused(case, str(error))
    names = [value.name for value in case.model.graph.output]
    try:
        program = compiled(case)
        failure = check_program(case, program)
        if failure:
            return failure
        session = InferenceSession(program)
        outputs = session.run(None, case.feeds)
        failure = compare_arguments(case, session, outputs)
        if failure:
            return failure
    except XbcompileError as error:
        return Failure(f"refused: {gist(error)}", str(error)[:500])
    except Exception:  # any fault is what is looked for
        return Failure(f"traceback: {last_place()}", traceback.format_exc()[-1500:])
    if len(outputs) != len(names):
        return Failure("names", f"{len(outputs)} outputs, not {len(names)}")
    found = dict(zip(names, outputs, strict=True))
    for name, value in zip(names, expected, strict=True):
        failure = compare(name, found[name], value, case.errors[name])
        if failure:
            return explained(case, name, found[name], failure)
    moved = [n for n, v in zip(names, expected, strict=True) if _moved(found[n], v)]
    return Failure("steps", f"{', '.join(moved)}: integers moved within what is allowed") if moved else None


def _moved(found: Any, expected: Any) -> bool:
    """Quantized values that are not equal: allowed where a quantizer follows float sums, but to be rare."""
    return bool(getattr(expected, "dtype", None) in ("int8", "uint8", "int16", "uint16") and (found != expected).any())


def compare_arguments(case: Case, session: InferenceSession, outputs: list[Any]) -> Failure | None:
    """Inputs and outputs are described as onnxruntime describes them; outputs' shapes may be better or less known."""
    theirs = open_session(case.model)
    inputs = [[(v.name, v.type, v.shape) for v in each.get_inputs()] for each in (session, theirs)]
    if inputs[0] != inputs[1]:
        return Failure("inputs", f"{inputs[0]}, not {inputs[1]}")
    for ours, other, output in zip(session.get_outputs(), theirs.get_outputs(), outputs, strict=True):
        if (ours.name, ours.type) != (other.name, other.type):
            return Failure("outputs", f"{ours}, not {other}")
        sizes = [
            (said, size) for said, size in zip(ours.shape, np.shape(output), strict=False) if isinstance(said, int)
        ]
        declared = next(value for value in case.model.graph.output if value.name == ours.name)
        if ours.shape == [dim.dim_value for dim in declared.type.tensor_type.shape.dim]:
            continue  # what the model itself says, which may be wrong
        wrong = any(said != size for said, size in sizes) or len(ours.shape) not in (0, np.ndim(output))
        if wrong and ours.shape != other.shape:
            return Failure("outputs", f"{ours} for {np.shape(output)}")
    return None


def check_refused(case: Case, reason: str) -> Failure | None:
    """What onnxruntime refuses may be refused here too, with one clear message."""
    try:
        compiled(case)
    except XbcompileError as error:
        return None if "\n" not in str(error) else Failure("message", f"of several lines: {error}")
    except Exception:  # any fault is what is looked for
        return Failure(f"traceback: {last_place()}", f"onnxruntime: {reason}\n{traceback.format_exc()[-1500:]}")
    return None


def compiled(case: Case) -> Any:
    """The program for an exact device with the case's arrays."""
    rows, columns = case.array
    target = load_target("ideal").with_quantities("drawn", rows=rows, columns=columns)
    return xbcompile.compile(case.model, target)


def check_program(case: Case, program: Any) -> Failure | None:
    """What must be lowered is; the program comes back from a file, and from a second import, as it is."""
    lowered = {record.node for record in program.network.records if record.lowered}
    missing = {name: operator for name, operator in case.must_lower.items() if name not in lowered}
    reasons = {record.node: record.reason for record in program.network.records}
    # Types that onnx and onnxruntime cannot infer are no fault of the compiler.
    missing = {n: o for n, o in missing.items() if not re.search("unknown|not known", reasons.get(n, ""))}
    if missing:
        name, operator = next(iter(missing.items()))
        return Failure(f"digital: {operator}", f"{operator} {name} stayed digital: {reasons.get(name, 'no record')}")
    if case.reload:
        with TemporaryDirectory() as folder:
            program.save(Path(folder) / "p.xbar")
            if load_program(Path(folder) / "p.xbar") != program:
                return Failure("reload", "the program comes back from a file as another")
    if case.again and compiled(case).digest != program.digest:
        return Failure("digest", "two imports give programs of different digests")
    return None


def compare(name: str, found: Any, expected: Any, error: float) -> Failure | None:
    """Shape, type and values of one output."""
    if np.shape(found) != np.shape(expected) or getattr(found, "dtype", None) != getattr(expected, "dtype", None):
        return Failure("type", f"{name}: {found.dtype} {np.shape(found)}, not {expected.dtype} {np.shape(expected)}")
    if not np.isfinite(error) or expected.size == 0 or expected.dtype.kind == "O":
        return None
    wide = np.float64 if expected.dtype.kind == "f" else object if expected.dtype.itemsize == 8 else np.int64
    left, right = np.asarray(found).astype(wide), np.asarray(expected).astype(wide)
    special = [np.where(np.isfinite(v), 0, v) for v in (left, right)]
    if expected.dtype.kind == "f" and not np.array_equal(special[0], special[1], equal_nan=True):
        return Failure("nonfinite", f"{name}: NaN or infinite elsewhere than onnxruntime has it")
    with np.errstate(invalid="ignore"):
        difference = np.abs(left - right)
    worst = float(np.nanmax(np.where(np.isfinite(difference.astype(float)), difference.astype(float), 0)))
    if worst <= error:
        return None
    size = float(np.nanmax(np.abs(right.astype(float))))
    share = float((difference > error).mean())
    return Failure(
        "values",
        f"{name}: differs by {worst:.3g}, allowed {error:.3g}, largest value {size:.3g}, {share:.1%} of elements",
    )


def explained(case: Case, name: str, found: Any, failure: Failure) -> Failure | None:
    """Told apart: onnxruntime's own optimizations change the result by more than rounding."""
    if failure.kind not in ("values", "nonfinite"):
        return failure
    names = [value.name for value in case.model.graph.output]
    plain = dict(zip(names, run_model(case.model, case.feeds, optimized=False), strict=True))[name]
    if compare(name, found, plain, case.errors[name]) is None:
        return Failure("optimizer", f"{failure.message}; equal to onnxruntime without optimizations")
    return failure


def gist(error: Exception) -> str:
    """An error's message without the names and numbers in it."""
    text = re.sub(r"\([^()]*\)", "", re.sub(r'"[^"]*"', "", str(error)))
    return f"{type(error).__name__} {re.sub(r'[^a-zA-Z]+', ' ', text)[:110]}"


def last_place() -> str:
    """File and function in which the exception at hand was raised, of this project where possible."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [f for f in frames if "site-packages" not in f.filename and "tests" not in Path(f.filename).parts]
    frame = (ours or frames)[-1]
    return f"{type(sys.exc_info()[1]).__name__} in {Path(frame.filename).name}:{frame.name}"


class Hang(BaseException):
    """A graph takes too long."""


def _hang(signal_number: int, frame: Any) -> None:
    raise Hang


def check_in_time(case: Case) -> Failure | None:
    """`check`, ended after SECONDS."""
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    try:
        return check(case)
    except Hang:
        return Failure("hang", f"more than {SECONDS} s")
    finally:
        signal.alarm(0)


def check_apart(case: Case) -> Failure | None:
    """`check_in_time` in a process of its own, whose crash is a failure."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.close(source)
        with os.fdopen(sink, "wb") as pipe:
            pickle.dump(check_in_time(case), pipe)
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        return Failure("crash", f"the process ends with status {status}")
    failure: Failure | None = pickle.loads(answer)
    return failure


def smaller(case: Case, values: dict[str, Any]) -> Iterator[Case]:
    """Cases with an output less, or with a node's outputs fed."""
    graph = case.model.graph
    if len(graph.output) > 1:
        for value in graph.output:
            yield with_graph(case, list(graph.node), [o for o in graph.output if o.name != value.name], case.feeds)
    outputs = {value.name for value in graph.output}
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        written = [name for name in node.output if name]
        constant = set(reads(node)) <= fixed
        fixed |= set(written) if constant else set()
        if outputs & set(written) or not all(isinstance(values.get(name), np.ndarray) for name in written):
            continue
        given = {name: values[name] for name in written}
        nodes = [n for n in graph.node if n is not node]
        if constant:
            yield with_graph(case, nodes, list(graph.output), case.feeds, given)
        else:
            yield with_graph(case, nodes, list(graph.output), {**case.feeds, **given})
    for changed in (replace(case, reload=False, again=False), replace(case, array=(64, 64))):
        if changed != case:
            yield changed


def with_graph(
    case: Case,
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    feeds: dict[str, Any],
    constants: dict[str, np.ndarray] | None = None,
) -> Case:
    """The case with these nodes and outputs, without what they do not need."""
    names = [value.name for value in outputs]
    nodes = alive(nodes, names)
    used = {name for node in nodes for name in reads(node)} | set(names)
    feeds = {name: array for name, array in feeds.items() if name in used}
    declared = {value.name: value for value in case.model.graph.input}
    tensors = [*case.model.graph.initializer, *(numpy_helper.from_array(a, n) for n, a in (constants or {}).items())]
    initializers = [tensor for tensor in tensors if tensor.name in used]
    inputs = [declared.get(name, value_info(name, array)) for name, array in feeds.items()]
    inputs += [declared[t.name] for t in initializers if t.name in declared]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.graph.CopyFrom(helper.make_graph(nodes, "random", inputs, outputs, initializers))
    kept = {node.name for node in nodes}
    return replace(
        case,
        model=model,
        feeds=feeds,
        errors={name: error for name, error in case.errors.items() if name in names},
        must_lower={name: operator for name, operator in case.must_lower.items() if name in kept},
    )


def every_value(case: Case) -> dict[str, Any]:
    """Every value of the graph, from onnxruntime without optimizations."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        return dict(zip(names, run_model(model, case.feeds, optimized=False), strict=True))
    except Exception:  # onnxruntime has many; then nothing is fed
        return {}


def reduced(
    case: Case, failure: Failure, judge: Callable[[Case], Failure | None] | None = None, seconds: float = 20.0
) -> tuple[Case, Failure]:
    """The smallest case found that fails in the same way, as `judge` (`check`) has it."""
    judge = judge or check
    values, end = every_value(case), time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < end:
        progress = False
        for candidate in smaller(case, values):
            try:
                again = judge(candidate)
            except Exception:  # what no longer is a case
                continue
            if again is not None and again.kind == failure.kind:
                case, failure, progress = candidate, again, True
                break
    return case, failure


def describe(case: Case) -> str:
    """The case in a few lines."""
    shapes = {t.name: tuple(t.dims) for t in case.model.graph.initializer}
    feeds = ", ".join(f"{name} {np.asarray(a).dtype}{list(np.shape(a))}" for name, a in case.feeds.items())
    opset = ", ".join(f"{e.domain or 'onnx'} {e.version}" for e in case.model.opset_import)
    lines = [f"  opset {opset}, IR {case.model.ir_version}, arrays {case.array}; inputs {feeds}"]
    for node in case.model.graph.node:
        inputs = ", ".join(f"{name}{list(shapes[name])}" if name in shapes else name or "-" for name in node.input)
        attributes = ", ".join(str(helper.printable_attribute(a)) for a in node.attribute if a.type != a.GRAPH)[:300]
        lines.append(f"  {', '.join(node.output)} = {node.op_type}({inputs}) {attributes}")
    lines.append(f"  outputs {', '.join(f'{name} (error {error:.2g})' for name, error in case.errors.items())}")
    return "\n".join(lines)


def save(case: Case, folder: Path, name: str) -> Path:
    """Write the model, and its inputs beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", **case.feeds)
    return folder / f"{name}.onnx"
