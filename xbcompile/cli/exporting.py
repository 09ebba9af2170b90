"""The export and where commands' work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xbcompile.cli.output import check_output, make_folder
from xbcompile.data.datasets import load_data
from xbcompile.errors import ProgramError
from xbcompile.export import folder, model, places, trace
from xbcompile.files import atomic_file, write_atomically
from xbcompile.program.program import load_program


def export_file(
    path: Path,
    output: Path | None,
    data: str | None,
    trace_file: Path | None,
    batches: int,
    onnx_file: Path | None,
    overlay_file: Path | None,
) -> dict[str, Any]:
    """Write what was asked for; the keys are those of `export --json`."""
    if not any((output, trace_file, onnx_file, overlay_file)):
        raise ProgramError("nothing to export; give -o DIR, --trace FILE, --onnx FILE or --overlay FILE")
    if data is not None and output is None:
        raise ProgramError(f"--data {data} is for the drives in a folder; give -o DIR")
    for each in (trace_file, onnx_file, overlay_file):
        if each is not None:
            check_output(each, path, data)
    program = load_program(path)
    written: list[Path] = []
    if output is not None:
        feeds = None if data is None else load_data(data, program.network.inputs, program.network.samples).inputs
        make_folder(output)
        written += folder.export_program(program, output, feeds)
    if trace_file is not None:
        with atomic_file(trace_file) as file:
            trace.write_trace(program, file, batches)
        written.append(trace_file)
    if onnx_file is not None:
        model.write_model(program, onnx_file)
        written.append(onnx_file)
    if overlay_file is not None:
        write_atomically(overlay_file, json.dumps(model.overlay(program), indent=1).encode())
        written.append(overlay_file)
    return {"files": [{"path": str(each), "bytes": each.stat().st_size} for each in written]}


def find_place(path: Path, weight: str | None, cell: str | None) -> dict[str, Any]:
    """Where a weight sits, or what a cell holds; the keys are those of `where --json`."""
    if (weight is None) == (cell is None):
        raise ProgramError("give either a weight, as in fc1[3,7], or --cell ARRAY,ROW,COLUMN")
    if weight is not None:
        layer, index = places.parse_place(weight)
        return {"weights": [places.weight_place(load_program(path), layer, index)]}
    assert cell is not None
    array, row, column = places.parse_cell(cell)
    return {"weights": places.cell_content(load_program(path), array, row, column)}
