"""Commands load the libraries that they use, and no others: most of a short command's time would be theirs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

LISTED = ["matplotlib", "networkx", "numba", "numpy", "onnx", "onnxruntime", "ortools", "pooch", "scipy"]
COMPUTED = {"matplotlib", "networkx", "numba", "onnxruntime", "ortools", "pooch", "scipy"}
COMMAND = """
import sys
from xbcompile.cli import main
try:
    main()
finally:
    print([name for name in %r if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def xor_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import xbcompile

    path = tmp_path_factory.mktemp("lazy") / "xor.xbar"
    xbcompile.compile("models/xor.onnx", target="ideal", passes="").save(path)
    return path


def loaded(code: str, *arguments: str) -> set[str]:
    """The heavy libraries that a process of its own has loaded when it ends."""
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    return set(json.loads(ended.stderr.splitlines()[-1].replace("'", '"')))


@pytest.mark.parametrize(
    ("command", "needless"),
    [
        ("", set(LISTED)),
        ("--help", set(LISTED)),
        ("--version", set(LISTED)),
        ("targets", {*COMPUTED, "onnx"}),
        ("passes", COMPUTED),
        ("inspect nothing.xbar", COMPUTED),
        ("inspect PROGRAM --schedule --image 0", COMPUTED),
        ("run nothing.xbar --data mnist:test:1", COMPUTED - {"onnxruntime"}),
        ("verify PROGRAM", COMPUTED - {"onnxruntime", "numba", "scipy"}),  # layers are run
        ("explain models/xor.onnx", COMPUTED - {"onnxruntime"}),
    ],
)
def test_a_command_loads_no_library_that_it_does_not_need(command: str, needless: set[str], xor_program: Path) -> None:
    arguments = [str(xor_program) if each == "PROGRAM" else each for each in command.split()]
    assert loaded(COMMAND % LISTED, *arguments) & needless == set()


@pytest.mark.parametrize(
    ("name", "needless"),
    [
        ("XbcompileError", set(LISTED)),
        ("CompileOptions", COMPUTED),
        ("compile", COMPUTED - {"onnxruntime"}),
    ],
)
def test_a_public_name_loads_no_library_that_it_does_not_need(name: str, needless: set[str]) -> None:
    code = f"import sys, xbcompile; xbcompile.{name}; print([n for n in {LISTED} if n in sys.modules], file=sys.stderr)"
    assert loaded(code) & needless == set()


@pytest.mark.parametrize(
    "package", ["xbcompile", *(f"xbcompile.{room}" for room in ("frontend", "ir", "runtime", "tiler"))]
)
def test_every_public_name_is_found(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module._WHERE) == sorted(module.__all__)
    for name, where in module._WHERE.items():
        assert getattr(module, name) is getattr(importlib.import_module(where), name)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
