"""`--labels KEY` of every command that takes labelled data, and files of data that commands take."""

from __future__ import annotations

import json

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import convolution_program, images


@pytest.fixture
def files(tmp_path):
    """A program, and images with labels of an unusual name, in which `label` is something else of the same length."""
    program, x = convolution_program(), images(6, 2, 4, 4)
    program.save(tmp_path / "p.xbar")
    name = program.network.outputs[0].name
    y = xbcompile.Session(program, "ideal").run_samples(x)[name].reshape(6, -1).argmax(axis=1)
    np.savez(tmp_path / "d.npz", pixels=x, digit=y)
    np.savez(tmp_path / "two.npz", pixels=x, label=y, target=y)
    return tmp_path


def test_labels_by_name(files, cli):
    given = ["--data", files / "d.npz", "--labels", "digit", "--json"]
    run = json.loads(cli("run", files / "p.xbar", "--device", "ideal", *given).out)
    assert run["accuracy"]["mean"] == 1
    diagnosis = json.loads(cli("diagnose", files / "p.xbar", *given).out)
    assert all(row["accuracy"] is not None for row in diagnosis["end_to_end"] if row["possible"])
    report = json.loads(cli("report", files / "p.xbar", "-o", files / "page.html", *given).out)
    assert report["run"]["accuracy"] is not None
    compared = json.loads(cli("compare", files / "p.xbar", files / "p.xbar", *given).out)
    assert [each["accuracy"] is not None for each in compared["runs"]] == [True, True]


@pytest.mark.parametrize("command", ["run", "diagnose"])
def test_labels_that_are_not_clear(files, cli, command):
    result = cli(command, files / "p.xbar", "--data", files / "two.npz")
    assert result.status == 1
    assert "label, target may each be the labels; say which: --labels label" in " ".join(result.err.split())
    result = cli(command, files / "p.xbar", "--data", files / "d.npz", "--labels", "nothing")
    assert "labels 'nothing': it is not there; found: pixels, digit" in " ".join(result.err.split())
