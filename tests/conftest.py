"""Data, and calling the command line in this process, in a folder of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.support.model_kit import MODELS
from xbcompile.cli import command


class Result(NamedTuple):
    status: int
    out: str
    err: str


os.environ.pop("COLUMNS", None)  # which workers of pytest-xdist set, and which says how wide tables may be

collect_ignore = ["plugin_sample"]  # tests of a package that is not installed here: see test_plugin.py


def _missing(what: str) -> None:
    """Skip where a developer's machine lacks the data; fail where continuous integration does."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set")
    pytest.skip(what)


@pytest.fixture(scope="session")
def mnist() -> Callable[[str, int], tuple[np.ndarray, np.ndarray]]:
    """Images float32 [N, 784] in 0..1 and labels of one part of MNIST, from $XBCOMPILE_DATA; nothing is downloaded."""
    from xbcompile.data.datasets import ENVIRONMENT_VARIABLE, load_data
    from xbcompile.frontend import import_network, load_model

    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if not folder or not (Path(folder) / "mnist" / "t10k-images-idx3-ubyte.gz").is_file():
        _missing(f"MNIST is needed in ${ENVIRONMENT_VARIABLE}/mnist")
    inputs = import_network(load_model(MODELS / "mnist_bnn.onnx")).inputs

    def load(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        data = load_data(f"mnist:{part}:{count}", inputs)
        assert data.labels is not None
        return data.inputs["input"], data.labels

    return load


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def models() -> Path:
    return MODELS


@pytest.fixture
def cli(folder, capsys, monkeypatch) -> Callable[..., Result]:
    """Call `xbcompile` with these arguments."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["xbcompile", *map(str, arguments)])
        status = 0
        try:
            command()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Result(status, *capsys.readouterr())

    return call
