"""Where commands write: places that are no plain files, and files that are none of theirs; see also tests/test_files.py."""

from __future__ import annotations

import io
import json
import os
import stat
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.small_programs import dense_model
from xbcompile import load_corrections, load_program
from xbcompile.cli import sensitivity

PASSES = "quantize{scheme=binary},thermometer{bits=2},recalibrate{samples=10}"
CHIP = """extends = "m2tj4"
name = "mine"
[quantities]
sigma_perp_ohm = { value = 40, unit = "Ohm", source = "assumed" }
t_read_s = { value = 1e-6, unit = "s", source = "measured" }
t_write_row_s = { value = 1e-6, unit = "s", source = "measured" }
e_write_row_j = { value = 0, unit = "J", source = "measured" }
[assumed]
sigma_perp_ohm = [0, 300]
"""
WRITERS = {
    "compile": ["compile", "model.onnx", "--target", "ideal"],
    "run": ["run", "program.xbar", "--data", "d.npz"],
    "commission": ["commission", "fitted.xbar"],
}


@pytest.fixture
def written(folder, program, done):
    """What the commands of WRITERS write into a plain file, by name."""
    inputs = np.random.default_rng(0).random((12, 6), np.float32)
    np.savez("d.npz", x=inputs)
    done(
        "compile", "model.onnx", "-o", "fitted.xbar", "--target", "mram64", "--passes", PASSES, "--calibration", "d.npz"
    )  # fmt: skip
    contents = {}
    for name, command in WRITERS.items():
        done(*command, "-o", "plain")
        contents[name] = (folder / "plain").read_bytes()
        (folder / "plain").unlink()
    return contents


def read_once(pipe: Path) -> Callable[[], bytes]:
    """Read a pipe to its end beside the test; a function that gives what came."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()

    def wait() -> bytes:
        reader.join(10)
        return found[0]

    return wait


def test_pipes_links_and_modes(folder, written, done, cli):
    os.mkfifo("pipe")
    os.mkdir("elsewhere")
    (folder / "link").symlink_to("elsewhere/file")
    (folder / "circle").symlink_to("circle")
    for name, command in WRITERS.items():
        received = read_once(folder / "pipe")
        done(*command, "-o", "pipe")
        assert received() == written[name]
        assert stat.S_ISFIFO(os.stat("pipe").st_mode)

        target = folder / "elsewhere" / "file"
        done(*command, "-o", "link")  # its target is made
        target.chmod(0o600)
        done(*command, "-o", "link")  # and replaced
        assert (folder / "link").is_symlink()
        assert target.read_bytes() == written[name]
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert os.listdir("elsewhere") == ["file"]
        target.unlink()

        status, out, err = cli(*command, "-o", "circle")
        assert (status, out) == (1, "")
        assert "Too many levels of symbolic links" in err


def test_what_a_pipe_gives_is_whole(folder, written):
    (folder / "p.xbar").write_bytes(written["compile"])
    assert load_program("p.xbar").network.layers
    (folder / "c.fit").write_bytes(written["commission"])
    assert load_corrections("c.fit").layers
    assert zipfile.ZipFile(io.BytesIO(written["run"])).testzip() is None


def test_commissioning_into_a_pipe_knows_no_size(folder, written, done):
    os.mkfifo("pipe")
    threading.Thread(target=(folder / "pipe").read_bytes, daemon=True).start()
    told = json.loads(done(*WRITERS["commission"], "-o", "pipe", "--json").out)
    assert told["output"] == {"path": "pipe", "bytes": None}


def test_a_reader_that_goes_away(folder, program, cli):
    os.mkfifo("pipe")

    def read_a_little():
        with open("pipe", "rb", buffering=0) as file:
            file.read(1)

    onnx.save(dense_model(400, 400), "large.onnx")  # more than a pipe holds
    reader = threading.Thread(target=read_a_little, daemon=True)
    reader.start()
    status, out, err = cli("compile", "large.onnx", "-o", "pipe", "--target", "ideal")
    assert (status, out) == (1, "")
    assert "cannot write 'pipe': Broken pipe" in err


def test_the_tensors_of_a_model_are_not_overwritten(folder, refused):
    """Nor by another name of theirs."""
    onnx.save(
        dense_model(30, 30), "model.onnx", save_as_external_data=True, location="tensors", size_threshold=0
    )  # fmt: skip
    os.link("tensors", "hard")
    for output in ("tensors", "hard", "./tensors"):
        told = refused("compile", "model.onnx", "-o", output, "--target", "ideal")
        assert "would overwrite the input 'model.onnx'" in told


def test_pictures(folder, done, monkeypatch):
    """Through links, with names that matplotlib would take for a formula, and a terminal for an order."""
    monkeypatch.setattr(sensitivity, "done_in_processes", lambda tasks, jobs: enumerate(task() for task in tasks))
    model, data = "a$_b$\x1b[31m.onnx", "d$^{$.npz"
    onnx.save(dense_model(2, 3), model)
    np.savez(data, x=np.random.default_rng(0).random((8, 2), np.float32), labels=np.arange(8) % 3)
    (folder / "mine.toml").write_text(CHIP)
    os.mkdir("elsewhere")
    for ending in ("png", "svg", "json"):
        os.symlink(f"elsewhere/{ending}", f"plot.{ending}")
    outputs = [each for ending in ("png", "svg", "json") for each in ("-o", f"plot.{ending}")]
    done("sensitivity", model, "--target", "mine.toml", "--data", data, "--calibration", data, "--repeat", 1, *outputs)
    assert sorted(os.listdir("elsewhere")) == ["json", "png", "svg"]
    assert "\x1b" not in (folder / "plot.svg").read_text()
    assert json.loads((folder / "plot.json").read_text())["model"] == model
