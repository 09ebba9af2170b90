"""Kill commands at random moments, and look at what is left: `python -m tests.soak.kill --kills 100`, or `make kills`.

Each command replaces files that are there already. After a kill (SIGKILL, to the command alone) every file must be the old or
the new one, every process of the command must end, and the next call must do its work. One of them compiles a kernel and keeps
it, one downloads its data, from a slow server of this process.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx

import xbcompile
from tests.support.small_programs import dense_model

MODELS = Path(__file__).parent.parent.parent / "models"
MAIN = "from xbcompile.cli import main; main()"
KERNEL = """
from xbcompile.files import write_atomically
from xbcompile.targets.counter_random import key_of, standard_normal
write_atomically("kernel", standard_normal(key_of("soak", 1), (40,)).tobytes())
"""
PASSES = "quantize{scheme=binary},thermometer{bits=2},recalibrate{samples=10}"
FIGURE = "sot-fig3c"
_PATIENCE = 600.0  # seconds that a call may take
_SETTLED = 10.0  # seconds in which every process of a killed command must have ended
_SLICES = 20  # of a download, with a pause before each
_LONG_AGO = 3600.0  # seconds; older than what may still be written


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Args:
        name: in the table.
        arguments: of the command line.
        outputs: files that it replaces, in its folder.
        code: what Python runs.
    """

    name: str
    arguments: Sequence[str]
    outputs: Sequence[str]
    code: str = MAIN


COMMANDS = [
    Command(
        "compile",
        f"compile model.onnx -o new.xbar --target mram64 --passes {PASSES} --calibration x.npz".split(),
        ["new.xbar"],
    ),
    Command("run", ["run", "program.xbar", "--data", "x.npz", "-o", "out.npz"], ["out.npz"]),
    Command("commission", ["commission", "program.xbar", "-o", "chip.fit"], ["chip.fit"]),
    Command(
        "reproduce",
        f"reproduce {FIGURE} --quick --models {MODELS} --figures figures".split(),
        [
            f"figures/{FIGURE}.{ending}" for ending in ("png", "json")
        ],  # the last digits of an .svg differ from call to call
    ),
    Command("kernel", [], ["kernel"], KERNEL),
    Command("download", ["run", "digits.xbar", "--data", "mnist:test:3", "-o", "digits.npz"], ["digits.npz"]),
]


@dataclass
class Row:
    """What the kills of one command did."""

    name: str
    kills: int = 0
    before: int = 0
    after: int = 0
    temporary: int = 0
    faults: list[str] = field(default_factory=list)


class Server:
    """Serves the test part of a set of three digits as MNIST's files, slowly."""

    def __init__(self) -> None:
        images = b"\0\0\x08\x03" + np.array([3, 28, 28], ">u4").tobytes() + bytes(range(256)) * 9 + bytes(48)
        labels = b"\0\0\x08\x01" + np.array([3], ">u4").tobytes() + bytes([0, 1, 2])
        contents = {"images-idx3": gzip.compress(images, mtime=0), "labels-idx1": gzip.compress(labels, mtime=0)}
        self.files = {f"t10k-{name}-ubyte.gz": content for name, content in contents.items()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                content = self.files[handler.path.rpartition("/")[2]]
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                step = -(-len(content) // _SLICES)
                for first in range(0, len(content), step):
                    time.sleep(0.3 / _SLICES)
                    try:
                        handler.wfile.write(content[first : first + step])
                    except OSError:  # the command was killed
                        return

            def log_message(handler, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def code(self) -> str:
        """The command line, with this server in the place of MNIST's."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        url = f"http://127.0.0.1:{self.server.server_port}/"
        return f"import xbcompile.data.datasets as d; d._FILES['mnist'] = ({url!r}, {digests!r}); {MAIN}"


class Soak:
    """A folder with models, programs and data, in which commands are killed.

    Args:
        folder: empty.
        seed: of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.server = Server()
        for name in ("figures", "tmp", "kernels", "cache"):
            (folder / name).mkdir()
        model, calibration = dense_model(30, 20, 4), np.random.default_rng(0).random((40, 30), np.float32)
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "x.npz", x=calibration)
        xbcompile.compile(
            model, "mram64", passes=PASSES, calibration={"x": calibration}, effort=0
        ).save(folder / "program.xbar")  # fmt: skip
        xbcompile.compile(dense_model(784, 3), "ideal", passes="", effort=0).save(folder / "digits.xbar")

    @cached_property
    def environment(self) -> dict[str, str]:
        """Every folder that commands write in belongs to the soak."""
        kept = {name: value for name, value in os.environ.items() if name != "XBCOMPILE_DATA"}
        folders = {"TMPDIR": "tmp", "XDG_CACHE_HOME": "cache"}
        return kept | {name: str(self.folder / value) for name, value in folders.items()}

    def start(self, command: Command) -> subprocess.Popen[bytes]:
        """The command, in a session of its own, with nothing kept of its kernels and downloads."""
        for name in ("cache", "kernels"):
            shutil.rmtree(self.folder / name)
            (self.folder / name).mkdir()
        return self._begun(command)

    def _begun(self, command: Command) -> subprocess.Popen[bytes]:
        code = self.server.code if command.name == "download" else command.code
        with open(self.folder / "tmp" / "messages", "wb") as messages:
            return subprocess.Popen(
                [sys.executable, "-c", code, *command.arguments],
                cwd=self.folder,
                env=self.environment | ({"NUMBA_CACHE_DIR": "kernels"} if command.name == "kernel" else {}),
                stdout=subprocess.DEVNULL,
                stderr=messages,
                start_new_session=True,
            )

    def outputs(self, command: Command) -> dict[str, bytes | None]:
        """The content of each of its files."""
        paths = {name: self.folder / name for name in command.outputs}
        return {name: path.read_bytes() if path.exists() else None for name, path in paths.items()}

    def finish(self, command: Command, process: subprocess.Popen[bytes]) -> str:
        """Wait for a call that nobody kills; what it said where it failed."""
        status = process.wait(_PATIENCE)
        return "" if status == 0 else (self.folder / "tmp" / "messages").read_text()

    def kill(self, command: Command, row: Row, duration: float, new: dict[str, bytes | None]) -> None:
        """Kill one call after a random time, and look."""
        old: dict[str, bytes | None] = dict.fromkeys(command.outputs, b"the old file")
        for name, content in old.items():
            (self.folder / name).write_bytes(content or b"")
        lying = set(self.temporary())
        process = self.start(command)
        time.sleep(self.random.uniform(0, 1.1) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
        row.kills += 1
        found = self.outputs(command)
        row.before += found == old
        row.after += found == new
        row.faults += [f"{name} is neither old nor new" for name in found if found[name] not in (old[name], new[name])]
        if not _all_ended(process.pid):
            row.faults.append("processes are left")
        row.temporary += len(set(self.temporary()) - lying)
        if error := self.finish(command, self._begun(command)):  # with what the killed one has left of its caches
            row.faults.append(f"the next call failed: {error.strip()}")
        elif self.outputs(command) != new:
            other = [name for name, content in self.outputs(command).items() if content != new[name]]
            row.faults.append(f"the next call gave something else: {', '.join(other)}")

    def temporary(self) -> list[Path]:
        """Files and folders that a command makes and removes."""
        names = (".xbcompile-*", "xbcompile-*", "pymp-*", "tmp*")
        return [each for name in names for each in self.folder.rglob(name) if each != self.folder / "tmp"]

    def left_at_last(self, commands: Sequence[Command]) -> list[Path]:
        """What is left once each command is called again, a while after the kills."""
        for each in self.temporary():
            for path in (each, *each.rglob("*")):
                os.utime(path, (time.time() - _LONG_AGO,) * 2, follow_symlinks=False)
        for command in commands:
            self.finish(command, self._begun(command))
        return self.temporary()


def _all_ended(session: int) -> bool:
    """Whether no process of a session is at work, after a while at most."""
    deadline = time.monotonic() + _SETTLED
    while _at_work(session):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _at_work(session: int) -> bool:
    for each in Path("/proc").iterdir():
        try:
            state, *numbers = (each / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(numbers[2]) == session and state != "Z":
            return True
    return False


def soak(
    folder: Path, kills: int, seed: int = 0, commands: Sequence[Command] = COMMANDS
) -> tuple[list[Row], list[Path]]:
    """Kill commands in turn, so many times in all.

    Args:
        folder: empty.
        kills: how many.
        seed: of the moments.
        commands: which.

    Returns:
        a row for each command, and the temporary files that are left at last.
    """
    soaked, rows = Soak(folder, seed), [Row(each.name) for each in commands]
    durations, results = [], []
    for command, row in zip(commands, rows, strict=True):
        started = time.perf_counter()
        if error := soaked.finish(command, soaked.start(command)):
            row.faults.append(f"fails without a kill: {error}")
        durations.append(time.perf_counter() - started)
        results.append(soaked.outputs(command))
    with suppress(KeyboardInterrupt):  # what was done until then is told
        for number in range(kills):
            which = number % len(commands)
            soaked.kill(commands[which], rows[which], durations[which], results[which])
    return rows, soaked.left_at_last(commands)


def main() -> None:
    """Print a table; exit status 1 on a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        rows, left = soak(Path(folder), given.kills, given.seed)
    print(
        "| command | kills | old files | new files | temporary files | faults |\n| --- | --- | --- | --- | --- | --- |"
    )
    for row in rows:
        print(f"| {row.name} | {row.kills} | {row.before} | {row.after} | {row.temporary} | {len(row.faults)} |")
    faults = [f"{row.name}: {fault}" for row in rows for fault in row.faults]
    print("\n".join([f"temporary files once all is called again: {[path.name for path in left]}", *faults]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
