"""Whether output files and folders can be written, asked before the work and not after it."""

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


def make_folder(folder: Path) -> None:
    """Make a folder for output, with those above it; raise ProgramError when it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ProgramError(f"output {str(folder)!r} is a file; give the name of a folder") from None
    except OSError as error:
        raise ProgramError(f"cannot make folder {str(folder)!r}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ProgramError(f"cannot write into folder {str(folder)!r}: permission denied")
