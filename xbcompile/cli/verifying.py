"""The verify command's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.errors import DataError
from xbcompile.frontend import load_model, runnable
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
    shapes = {name: shape for name, shape in inputs if not _fits(feeds[name].shape, shape)}
    if shapes:
        own_shapes = {name: list(feeds[name].shape) for name in shapes}
        return [f"model: inputs have shapes {shapes}, the program takes {own_shapes}"], []
    try:
        wanted = session.run(None, feeds)
        found = Session(program, "ideal").run(feeds)
    except _REFUSALS as error:
        raise _cannot_run(program, feeds, error) from error
    notes = []
    for name, reference in zip(outputs, wanted, strict=True):
        result = found[name]
        if np.shape(result) != np.shape(reference):
            return [f"model: output {name!r} has shape {np.shape(reference)}, the program's {np.shape(result)}"], []
        if np.asarray(reference).dtype.kind == "f":
            size = float(np.abs(reference[np.isfinite(reference)]).max(initial=0))
            difference = float(differences(result, reference).max(initial=0))
            notes.append(f"output {name!r}: largest difference from the model {difference:.3g}, of {size:.3g}")
    return [], notes


def _cannot_run(program: Program, feeds: dict[str, Any], error: Exception) -> DataError:
    """Open dimensions may stand for sizes that random inputs do not have."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, np.shape(value))) or 'scalar'}" for name, value in feeds.items())
    hint = advice(program.network.inputs, batch=True) or "compare it with its own inputs, with run"
    return DataError(f"model: it refuses random inputs of shape {shapes}: {engine.one_line(error)}; {hint}")


def _fits(found: tuple[int, ...], wanted: list[int | str | None]) -> bool:
    return len(found) == len(wanted) and all(
        not isinstance(w, int) or w == f for f, w in zip(found, wanted, strict=True)
    )
