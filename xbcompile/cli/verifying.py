"""The verify command's work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.errors import DataError
from xbcompile.frontend import load_model, runnable
from xbcompile.ir import SampleAxes
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.dimensions import advice
from xbcompile.onnx_graph.engine import open_session
from xbcompile.program.program import Program, load_program
from xbcompile.runtime import Session
from xbcompile.verification.differences import differences
from xbcompile.verification.probes import probe_inputs
from xbcompile.verification.verify import verify

_REFUSALS: tuple[type[Exception], ...] = (DataError, *engine.ERRORS)


def verify_program(path: Path, model: Path | None) -> dict[str, Any]:
    """Findings (wrong), and notes (worth knowing), about a program file."""
    program = load_program(path)
    findings = verify(program)
    notes: list[str] = []
    if model is not None and not findings:
        findings, notes = compare_with_model(program, model)
    return {"findings": findings, "notes": notes}


def compare_with_model(program: Program, path: Path) -> tuple[list[str], list[str]]:
    """Interface must be the model's; the outputs' difference on the exact device is a note, as quantization makes one."""
    session = open_session(runnable(load_model(path, program.options.inputs)))
    inputs = [(v.name, list(v.shape)) for v in session.get_inputs()]
    own = [value.name for value in program.network.inputs]
    outputs = [v.name for v in session.get_outputs()]
    if [name for name, _ in inputs] != own:
        return [f"model: inputs are {[n for n, _ in inputs]}, the program's {own}"], []
    if outputs != [value.name for value in program.network.outputs]:
        return [f"model: outputs are {outputs}, the program's {[v.name for v in program.network.outputs]}"], []
    feeds = probe_inputs(program)
    shapes = {name: shape for name, shape in inputs if not _fits(feeds[name], shape)}
    if shapes:
        own_shapes = {name: list(feeds[name].shape) for name in shapes}
        return [f"model: inputs have shapes {shapes}, the program takes {own_shapes}"], []
    try:
        wanted = session.run(None, feeds)
        found = Session(program, "ideal").run(feeds)
    except _REFUSALS as error:
        raise _cannot_run(program, feeds, error) from error
    notes: list[str] = []
    for name, reference in zip(outputs, wanted, strict=True):
        own_parts, parts = list(_parts(found[name])), list(_parts(reference))
        if [each.shape for each in own_parts] != [each.shape for each in parts]:
            return [f"model: output {name!r} has shape {_shapes(parts)}, the program's {_shapes(own_parts)}"], []
        notes += _differences(name, own_parts, parts)
    return [], notes


def _parts(value: Any) -> Iterator[np.ndarray]:
    """The arrays that a value is made of: the entries of a sequence, keys and values of a map."""
    if isinstance(value, Mapping):
        yield from (np.array(list(each)) for each in (value.keys(), value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each)
    elif value is not None:
        yield np.asarray(value)


def _shapes(parts: Sequence[np.ndarray]) -> str:
    return ", ".join(str(each.shape) for each in parts) or "no value"


def _differences(name: str, found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> Iterator[str]:
    """How far an output is from the model's: the largest difference of numbers, how many of other values are others."""
    pairs = list(zip(found, wanted, strict=True))
    numbers = [(a, b) for a, b in pairs if b.dtype.kind == "f"]
    if numbers:
        difference = max(float(differences(a, b).max(initial=0)) for a, b in numbers)
        size = max(float(np.abs(b[np.isfinite(b)]).max(initial=0)) for _, b in numbers)
        yield f"output {name!r}: largest difference from the model {difference:.3g}, of {size:.3g}"
    others = [(a, b) for a, b in pairs if b.dtype.kind != "f"]
    if others:
        different = sum(int(np.sum(a != b)) for a, b in others)
        yield f"output {name!r}: {different:,} of {sum(b.size for _, b in others):,} values are not the model's"


def _cannot_run(program: Program, feeds: dict[str, Any], error: Exception) -> DataError:
    """Open dimensions may stand for sizes that random inputs do not have."""
    shapes = ", ".join(f"{name} {_described(value)}" for name, value in feeds.items())
    hint = advice(program.network.inputs, SampleAxes()) or "compare it with its own inputs, with run"
    return DataError(f"model: it refuses random inputs of shape {shapes}: {engine.one_line(error)}; {hint}")


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "x".join(map(str, value.shape)) or "scalar"
    return "sequence" if isinstance(value, list) else "map" if isinstance(value, dict) else "no value"


def _fits(found: Any, wanted: list[int | str | None]) -> bool:
    """Whether a tensor has the shape that the model declares; what is no tensor has none."""
    if not isinstance(found, np.ndarray):
        return True
    return len(found.shape) == len(wanted) and all(
        not isinstance(w, int) or w == f for f, w in zip(found.shape, wanted, strict=True)
    )
