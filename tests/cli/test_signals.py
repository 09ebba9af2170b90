"""Signals that end a command: what it says, its status, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.test_process import SLOW, wait_for

COMPILE = ["compile", "model.onnx", "-o", "out.xbar", "--target", "ideal"]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

# As SLOW, but the main thread is inside a library that never looks at signals.
DEAF = """
import hashlib, pathlib, sys
def slow(*arguments, **options):
    pathlib.Path('begun').touch()
    hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)
import xbcompile.files
xbcompile.files.os.replace = slow
from xbcompile.cli import main, signals
signals._GRACE = 0.2
main()
"""
# An interruption that falls into a finalizer, which Python reports and forgets.
FINALIZER = """
import os, pathlib, signal, time
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
def slow(*arguments, **options):
    pathlib.Path('begun').touch()
    Finalized()
    time.sleep(60)
import xbcompile.files
xbcompile.files.os.replace = slow
from xbcompile.cli import main
main()
"""
# The first interruption takes long to tidy up after.
TIDYING = """
import pathlib, time
def slow(*arguments, **options):
    try:
        pathlib.Path('begun').touch()
        time.sleep(60)
    finally:
        pathlib.Path('tidying').touch()
        time.sleep(60)
import xbcompile.files
xbcompile.files.os.replace = slow
from xbcompile.cli import main
main()
"""


def started(folder, source, *command, **options):
    return subprocess.Popen(
        [sys.executable, "-c", source, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ended(process, number):
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("", f"xbcompile: {WORDS[number]}\n")
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("source", [SLOW.format(module="os", name="replace"), DEAF], ids=["heard", "deaf"])
def test_no_file_is_left(folder, model, source, number):
    process = started(folder, source, *COMPILE)
    wait_for(folder / "begun", process)
    process.send_signal(number)
    ended(process, number)
    assert sorted(os.listdir(folder)) == ["begun", "model.onnx"]


def test_a_signal_in_a_finalizer_is_not_lost(folder, model):
    process = started(folder, FINALIZER, *COMPILE)
    ended(process, signal.SIGTERM)
    assert sorted(os.listdir(folder)) == ["begun", "model.onnx"]


def test_a_second_signal_ends_at_once(folder, model):
    process = started(folder, TIDYING, *COMPILE)
    wait_for(folder / "begun", process)
    process.send_signal(signal.SIGTERM)
    wait_for(folder / "tidying", process)
    process.send_signal(signal.SIGINT)
    ended(process, signal.SIGINT)
    assert sorted(os.listdir(folder)) == ["begun", "model.onnx", "tidying"]


def test_what_the_caller_ignores_stays_ignored(folder, model):
    """As `nohup` has it for SIGHUP, and a shell for the SIGINT of commands in the background."""
    ignored = {signal.SIGHUP, signal.SIGINT}
    process = started(
        folder,
        SLOW.format(module="os", name="replace"),
        *COMPILE,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored],
    )
    wait_for(folder / "begun", process)
    for number in ignored:
        process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    ended(process, signal.SIGTERM)


def test_an_interruption_while_it_starts(folder):
    """From Python's first line of this package on; before that, a traceback would be Python's own."""
    source = "import xbcompile.cli, pathlib; pathlib.Path('begun').touch(); xbcompile.cli.main()"
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15):
        process = started(folder, source, "targets")
        wait_for(folder / "begun", process)
        (folder / "begun").unlink()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) in (
            (130, "xbcompile: interrupted\n"),
            (-signal.SIGINT, ""),  # all was printed
            (0, ""),
        )
