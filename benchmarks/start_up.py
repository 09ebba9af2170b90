"""What it takes until a command of the command line ends that has nothing to do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import xbcompile
from benchmarks.work import MODELS

# `python` is what Python itself takes.
COMMANDS = {
    "python": ["-c", "pass"],
    "--help": ["-m", "xbcompile.cli", "--help"],
    "targets": ["-m", "xbcompile.cli", "targets"],
    "passes": ["-m", "xbcompile.cli", "passes"],
    "inspect": ["-m", "xbcompile.cli", "inspect", "PROGRAM"],
}


class CommandSide:
    """A process, from its start to its end."""

    def __init__(self, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        program = Path(self._folder.name) / "xor.xbar"
        if name == "inspect":
            xbcompile.compile(str(MODELS / "xor.onnx")).save(program)
        self.command = [sys.executable, *(str(program) if each == "PROGRAM" else each for each in COMMANDS[name])]
        self.facts: dict[str, Any] = {}

    def run(self, threads: int) -> None:
        subprocess.run(self.command, check=True, capture_output=True)
