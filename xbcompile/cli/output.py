"""Whether an output file can be written, asked before the work and not after it."""

from __future__ import annotations

import os
from pathlib import Path

from xbcompile.errors import ProgramError


def check_output(path: Path, *inputs: str | Path | None) -> None:
    """Raise ProgramError when `path` cannot be written, or is one of the command's own input files."""
    folder = path.parent
    if path.is_dir() or not path.name:
        raise ProgramError(f"output {str(path)!r} is a folder; give the name of a file")
    if not folder.is_dir():
        raise ProgramError(f"cannot write into folder {str(folder)!r}: it does not exist or is no folder")
    if not os.access(folder, os.W_OK):
        raise ProgramError(f"cannot write into folder {str(folder)!r}: permission denied")
    for each in inputs:
        if each is not None and path.exists() and os.path.exists(each) and os.path.samefile(path, each):
            raise ProgramError(f"output {str(path)!r} would overwrite the input {str(each)!r}; give another name")
