"""The verify command's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.frontend import load_model
from xbcompile.ir.activations import make_session
from xbcompile.program import Program, load_program
from xbcompile.runtime import Session
from xbcompile.verification import probe_inputs, verify


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
    model = load_model(path)
    session = make_session(model)
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
    wanted = session.run(None, feeds)
    found = Session(program, "ideal").run(feeds)
    notes = []
    for name, reference in zip(outputs, wanted, strict=True):
        result = found[name]
        if np.shape(result) != np.shape(reference):
            return [f"model: output {name!r} has shape {np.shape(reference)}, the program's {np.shape(result)}"], []
        if np.asarray(reference).dtype.kind == "f":
            size = float(np.abs(reference).max(initial=0))
            difference = float(np.abs(result - reference).max(initial=0))
            notes.append(f"output {name!r}: largest difference from the model {difference:.3g}, of {size:.3g}")
    return [], notes


def _fits(found: tuple[int, ...], wanted: list[int | str | None]) -> bool:
    return len(found) == len(wanted) and all(
        not isinstance(w, int) or w == f for f, w in zip(found, wanted, strict=True)
    )
