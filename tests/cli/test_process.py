"""What needs a process of its own: clean standard output, interruption, a reader that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from tests.support.small_programs import dense_model
from xbcompile import load_program

COMMAND = [sys.executable, "-c", "from xbcompile.cli import main; main()"]


def start(folder, *arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=folder, text=True, **options)


def wait_for(path, process):
    """Until the process says that it is at work; fails when it ends before."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_json_alone_on_standard_output(model):
    process = start(model.parent, "compile", model, "-o", "p.xbar", "--json")
    out, err = process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["totals"]["layers"] == 2
    assert err.startswith("xbcompile: warning: ")
    assert len(err.splitlines()) == 1
    refused = start(model.parent, "inspect", model)
    out, err = refused.communicate()
    assert refused.returncode == 1
    assert out == ""
    assert err.startswith("xbcompile: error: ")
    assert len(err.splitlines()) == 1


# A file says when the work that takes long has begun; that work then lasts until it is interrupted.
SLOW = """
import pathlib, time
def slow(*arguments, **options):
    pathlib.Path('begun').touch()
    time.sleep(60)
import {module}
{module}.{name} = slow
from xbcompile.cli import main
main()
"""


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        (["compile", "model.onnx", "-o", "out.xbar", "--target", "ideal"], "xbcompile.api.compiling", "verify"),
        (["compile", "model.onnx", "-o", "out.xbar", "--target", "ideal"], "os", "replace"),
        (["run", "program.xbar", "--data", "d.npz", "-o", "out.npz"], "xbcompile.runtime.layer_executor", "lay_out"),
        (["run", "program.xbar", "--data", "d.npz", "-o", "out.npz"], "os", "replace"),
    ],
    ids=["compile", "compile_writing", "run", "run_writing"],
)
def test_interruption(folder, program, command, module, name):
    np.savez(folder / "d.npz", x=np.ones((4, 6), np.float32))
    before = sorted(os.listdir(folder))
    source = SLOW.format(module=module, name=name)
    process = subprocess.Popen(
        [sys.executable, "-c", source, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(folder / "begun", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "xbcompile: interrupted\n"
    assert out == ""
    assert sorted(os.listdir(folder)) == sorted([*before, "begun"])


def test_interruption_anywhere(folder):
    """Whenever it comes: no traceback, no partial file."""
    onnx.save(dense_model(600, 400, 300), folder / "model.onnx")
    source = "import pathlib; pathlib.Path('begun').touch(); from xbcompile.cli import main; main()"
    command = [sys.executable, "-c", source, "compile", "model.onnx", "-o", "p.xbar", "--target", "m2tj4"]
    for delay in (0.3, 0.7, 1.1):
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(folder / "begun", process)
        (folder / "begun").unlink()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        assert process.returncode in (0, 130, -signal.SIGINT)  # the last: when the work was done already
        if process.returncode != 130:
            load_program(folder / "p.xbar")  # whole
            (folder / "p.xbar").unlink()
        assert os.listdir(folder) == ["model.onnx"]


# Experiments of which one fails at once where it is told to, while the others would take a minute.
SLOW_EXPERIMENTS = """
import os, pathlib, time
from dataclasses import dataclass
from xbcompile.errors import DataError
@dataclass
class Slow:
    name: str
    weight: float = 1
    def check(self, models):
        pass
    def run(self, models, seeds, threads):
        pathlib.Path(self.name + '.new').write_text(str(os.getpid()))
        os.replace(self.name + '.new', self.name)  # there with its content, however soon the process ends
        while not pathlib.Path('b').exists():
            time.sleep(0.01)
        if self.name == 'fails':
            raise DataError('no such thing')
        time.sleep(60)
"""
WORKERS = """
import xbcompile.cli.reproducing as reproducing
from slow_experiments import Slow
reproducing.EXPERIMENTS = [Slow('a'), Slow('b'), Slow('fails')]
from xbcompile.cli import main
main()
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks processes up in /proc")
@pytest.mark.parametrize(
    ("experiments", "stop", "status", "message"),
    [
        ("ab", lambda pid: os.killpg(pid, signal.SIGINT), 130, "xbcompile: interrupted\n"),
        ("ab", lambda pid: os.kill(pid, signal.SIGINT), 130, "xbcompile: interrupted\n"),
        ("ab", lambda pid: os.kill(pid, signal.SIGKILL), -signal.SIGKILL, ""),
        (["b", "fails"], lambda pid: None, 1, "xbcompile: error: no such thing\n"),
    ],
    ids=["interrupted", "interrupted_alone", "killed", "failed"],
)
def test_no_worker_is_left(folder, experiments, stop, status, message):
    (folder / "slow_experiments.py").write_text(SLOW_EXPERIMENTS)
    command = [sys.executable, "-c", WORKERS, "reproduce", "--jobs", "2", *experiments]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for name in experiments:
        wait_for(folder / name, process)
    stop(process.pid)
    out, err = process.communicate(timeout=20)  # pipes end with the last worker
    told = [
        line for line in err.splitlines(keepends=True) if "resource_tracker" not in line
    ]  # it tidies up after a kill
    assert (out, "".join(told)) == ("", message)
    assert process.returncode == status
    deadline = time.monotonic() + 10
    while any(is_running((folder / name).read_text()) for name in experiments):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_interruption_before_any_command(cli, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("xbcompile.cli._run", interrupted)
    assert cli("passes") == (130, "", "xbcompile: interrupted\n")


def test_reader_goes_away(folder):
    process = start(folder, "targets", "--json")
    assert process.stdout.read(1) == "{"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1)  # whether the rest was already in the pipe
    assert err == ""
    reading, writing = os.pipe()
    os.close(reading)
    process = start(folder, "targets", stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == ""
    assert process.returncode == 1


def test_no_standard_output(folder):
    closed = f"{sys.executable} -c 'from xbcompile.cli import main; main()' targets >&-"
    process = subprocess.run(["sh", "-c", closed], cwd=folder, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full exists on Linux only")
def test_full_disk_behind_standard_output(folder):
    with open("/dev/full", "w") as full:
        process = start(folder, "passes", stdout=full)
        _, err = process.communicate()
    assert process.returncode == 1
    assert err == "xbcompile: error: No space left on device\n"
