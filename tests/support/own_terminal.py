"""A command on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from pathlib import Path


def start_on_terminal(
    folder: Path, command: Sequence[str], rows: int = 24, columns: int = 80, **environment: str
) -> tuple[int, subprocess.Popen]:
    """Start a command whose streams and controlling terminal are a new one: our end of it, and the process."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # of the tests' own
        | {"TERM": "xterm"}
        | environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    return master, process


def on_terminal(
    folder: Path,
    command: Sequence[str],
    rows: int = 24,
    columns: int = 80,
    act: Callable[[int], None] = lambda master: None,
    **environment: str,
) -> tuple[str, int]:
    """Run a command to its end: what it showed, and its status. `act` may type, on our end of the terminal."""
    master, process = start_on_terminal(folder, command, rows, columns, **environment)
    act(master)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the last writer has closed it
            break
        if not part:
            break
        shown += part
    status = process.wait(30)
    os.close(master)
    return shown.decode(), status
