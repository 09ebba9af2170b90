"""A folder that holds all of a program, for people and programs that know nothing of this package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from xbcompile.export import drives, model, tables
from xbcompile.files import atomic_file
from xbcompile.program.program import Program
from xbcompile.report.summary import summarize

MOST_CSV_WEIGHTS = 10_000_000  # about 700 MB of text; assumed


def export_program(
    program: Program,
    folder: str | os.PathLike[str],
    feeds: Mapping[str, np.ndarray] | None = None,
    csv_weights: int = MOST_CSV_WEIGHTS,
) -> list[Path]:
    """Write a program into a folder, which must exist; files of the same names are replaced, each whole or not at all.

    `program.json` says what the others hold and is written last. See docs/export.md.

    Args:
        program: the program.
        folder: where to write.
        feeds: graph inputs by name, whose drives are written too; None: no drives.
        csv_weights: `cells.csv`, a line for each weight, is left out where the program has more weights.

    Returns:
        The files, in the order in which they were written.

    Raises:
        ProgramError: a file cannot be written.
        DataError: the drives of so many samples are too many.
    """
    where, written = Path(folder), []

    def write(name: str, content: Callable[[IO[bytes]], Any]) -> None:
        path = where / name
        with atomic_file(path) as file:
            content(file)
        written.append(path)

    facts = summarize(program)
    if facts["totals"]["weights"] <= csv_weights:
        write("cells.csv", lambda file: tables.write_cells_csv(program, file))
    write("cells.npz", lambda file: tables.write_cells_npz(program, file))
    write("layers.npz", lambda file: tables.write_layers_npz(program, file))
    write("schedule.csv", lambda file: tables.write_schedule_csv(program, file))
    write("schedule.jsonl", lambda file: tables.write_schedule_lines(program, file))
    if feeds is not None:
        write("drives.npz", lambda file: drives.write_drives_npz(program, feeds, file))
    model.write_model(program, where / "host.onnx")
    written.append(where / "host.onnx")
    described = facts | {"files": [path.name for path in written], "target": json.loads(program.target.to_json())}
    write("program.json", lambda file: file.write(json.dumps(described, indent=1).encode()))
    return written
