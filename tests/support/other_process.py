"""Packages that are installed into a folder, and Python processes of their own that see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def install(source: Path, site: Path) -> None:
    """With pip, as a user does, but from the disk alone."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)


# Runs modules as `python -m` does, one after another in one process, as most of a short command is the time that libraries load.
_ONE_AFTER_ANOTHER = """
import contextlib, io, json, runpy, sys

sys.path.insert(0, "")
results = []
for arguments in json.load(sys.stdin):
    sys.argv, status = list(arguments), 0
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = int(ended.code or 0)
    results.append((status, printed.getvalue()))
json.dump(results, sys.stdout)
"""


def run_modules(site: Path, folder: Path, calls: Sequence[Sequence[str]]) -> list[str]:
    """What each call of a Python module prints, with what is installed in `site`; none may fail."""
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, "-c", _ONE_AFTER_ANOTHER]
    done = subprocess.run(
        command, cwd=folder, env=environment, input=json.dumps([*map(list, calls)]), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)
    for call, (status, printed) in zip(calls, results, strict=True):
        assert status == 0, f"{' '.join(call)} ended with status {status}:\n{printed}\n{done.stderr}"
    return [printed for _, printed in results]
