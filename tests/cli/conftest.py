"""Calling the command line and judging what comes back; see also the fixtures of all tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.conftest import Result
from tests.support.small_programs import dense_model
from xbcompile.cli.characters import visible


@pytest.fixture
def done(cli) -> Callable[..., Result]:
    """Call `xbcompile` and expect success."""

    def call(*arguments: object) -> Result:
        result = cli(*arguments)
        assert result.status == 0, result.err
        return result

    return call


@pytest.fixture
def refused(cli, folder) -> Callable[..., str]:
    """Call `xbcompile` and expect one error line, status 1, nothing else on standard output and no file touched.

    With `--json`, standard output has the error as an object.
    """

    def call(*arguments: object) -> str:
        before = _contents(folder)
        result = cli(*arguments)
        assert result.status == 1
        *warnings, line = result.err.splitlines()
        if "--json" in arguments:
            found = json.loads(result.out)["error"]
            assert found["kind"].endswith("Error")
            assert visible(" ".join(found["message"].split())) == line.removeprefix("xbcompile: error: ")
        else:
            assert result.out == ""
        assert all(each.startswith("xbcompile: warning: ") for each in warnings)
        assert line.startswith("xbcompile: error: ")
        assert _contents(folder) == before
        return line

    return call


def _contents(folder: Path) -> dict[str, bytes]:
    return {os.path.relpath(path, folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def model(folder) -> Path:
    """A network 6-4-3 in a file."""
    path = folder / "model.onnx"
    onnx.save(dense_model(6, 4, 3), path)
    return path


@pytest.fixture
def program(model, done) -> Path:
    """The network compiled for the exact array."""
    done("compile", model, "-o", "program.xbar", "--target", "ideal")
    return Path("program.xbar")
