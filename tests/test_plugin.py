"""The sample package, installed beside this one and run in processes of its own: nothing of this repository is edited for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.model_kit import MODELS
from tests.support.other_process import install, run_modules

ROOT = Path(__file__).parent.parent
SAMPLE = Path(__file__).parent / "plugin_sample"
NAMES = ("xbcompile_sample", "xbcompile-sample", "one-gain", "drifting-chip", "DriftingArray", "rewrite_dft")

COMMAND = "from xbcompile.cli import main; main()"

Run = Callable[..., subprocess.CompletedProcess[str]]


def runner(site: Path, folder: Path) -> Run:
    """Runs the command line, in `folder`, with what is installed in `site`."""
    return lambda *arguments, status=0: python(site, folder, "-c", COMMAND, *arguments, status=status)


def python(site: Path, folder: Path, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's source, copied, and the package installed from it in `site`."""
    folder = tmp_path_factory.mktemp("sample")
    shutil.copytree(SAMPLE, folder / "source")
    install(folder / "source", folder / "site")
    return folder


@pytest.fixture(scope="module")
def program(sample: Path) -> Path:
    """Where the commands of `printed` keep a program for the sample's target."""
    return sample / "p.xbar"


@pytest.fixture(scope="module")
def printed(sample: Path, program: Path) -> dict[str, str]:
    """What commands print that use the sample by name; one process runs them all, as most of each would be loading libraries."""
    data = sample / "x.npz"
    np.savez(data, input=np.random.default_rng(0).random((40, 2), dtype=np.float32))
    (sample / "mine.toml").write_text('extends = "drifting-chip"\nname = "mine"\n')
    compiling = ["compile", MODELS / "xor.onnx", "--target", "drifting-chip", "-o", program]
    compiling += ["--calibration", data, "--set", "drift_sigma=0"]
    calls: dict[str, list[object]] = {
        "targets": ["targets", "--json"],
        "passes": ["passes", "--json"],
        "compile": compiling,
        "verify": ["verify", program],
        "run": ["run", program, "--data", data],
        "a target of a file": ["targets", sample / "mine.toml"],
    }
    modules = [["xbcompile.cli", *map(str, call)] for call in calls.values()]
    return dict(zip(calls, run_modules(sample / "site", sample / "source", modules), strict=True))


def test_its_own_tests_pass(sample: Path) -> None:
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    assert " passed" in python(sample / "site", sample / "source", *options).stdout


def test_it_is_used_by_name_on_the_command_line(printed: dict[str, str]) -> None:
    listed = {each["name"]: each for each in json.loads(printed["targets"])["targets"]}
    assert listed["drifting-chip"]["model"] == "drifting"
    passes = {each["name"]: each for each in json.loads(printed["passes"])["passes"]}
    assert passes["prune"]["options"] == {"share": 0.5, "first": True}
    assert "one-gain" in passes
    assert "xor on drifting-chip (16x16" in printed["compile"]
    assert "prune{share=0.25}" in printed["compile"]
    assert "right" in printed["verify"]
    assert "40 inferences" in printed["run"]
    assert "mine" in printed["a target of a file"]


@pytest.mark.usefixtures("printed")
def test_a_program_says_what_it_misses_where_the_package_is_not(program: Path, tmp_path: Path) -> None:
    without = runner(tmp_path, tmp_path)("run", program, "--data", "x.npz", status=1)
    assert "unknown model 'drifting'; allowed: ideal, " in without.stderr
    assert "Traceback" not in without.stderr


def test_two_packages_with_one_name_are_an_error_that_names_both(sample: Path, tmp_path: Path) -> None:
    rival = tmp_path / "rival"
    shutil.copytree(SAMPLE, rival)
    (rival / "src" / "xbcompile_sample").rename(rival / "src" / "xbcompile_rival")
    text = (rival / "pyproject.toml").read_text().replace("xbcompile-sample", "xbcompile-rival")
    (rival / "pyproject.toml").write_text(text.replace("xbcompile_sample", "xbcompile_rival"))
    shutil.copytree(sample / "site", tmp_path / "site")
    install(rival, tmp_path / "site")
    both = runner(tmp_path / "site", tmp_path)
    for command, first in (("passes", "pass 'one-gain'"), ("targets", "target 'drifting-chip'")):
        error = both(command, status=1).stderr
        assert f"{first} comes with both xbcompile-rival (xbcompile_rival" in error
        assert "and xbcompile-sample (xbcompile_sample" in error
        assert "Traceback" not in error


def test_nothing_outside_the_package_knows_it() -> None:
    """Lines edited outside of it: none. No file of the shipped packages holds a name of it."""
    files = [path for folder in ("xbcompile", "passes", "runtime", "targets") for path in (ROOT / folder).rglob("*.*")]
    sources = {path: path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".toml")}
    assert len(sources) > 200
    assert [(path, name) for path, source in sources.items() for name in NAMES if name in source] == []
