"""The order of imports: each part imports only parts below it, imports inside functions included."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "xbcompile": "xbcompile",
    "passes": "xbcompile.passes",
    "runtime": "xbcompile.runtime",
    "targets": "xbcompile.targets",
}

# From the bottom to the top; parts of one row do not import each other.
ORDER = [
    {"errors", "units"},
    {"ir", "data", "extensions"},
    {"onnx_graph", "tiler", "targets"},
    {"reference"},
    {"frontend", "passes"},
    {"program"},
    {"runtime"},
    {"verification", "diagnosis"},
    {"planning"},
    {"api", "report"},
    {"interop", "experiments"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
# Less than the order would allow: data knows models only as onnx has them, reports only
# show what a program or a plan holds.
ONLY = {"data": {"errors"}, "report": {"errors", "units", "ir", "onnx_graph", "program", "planning"}}


def module_of(path):
    """Dotted name of a source file, as it is imported."""
    relative = path.relative_to(ROOT).with_suffix("")
    names = [FOLDERS[relative.parts[0]], *relative.parts[1:]]
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def part_of(module):
    """`xbcompile.tiler.cuts.blocks` belongs to `tiler`; the package itself to no part."""
    names = module.split(".")
    return names[1] if names[0] == "xbcompile" and len(names) > 1 else None


def imports(path):
    """Every module that a file imports, anywhere in it, with its line; relative names made absolute."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *([base] if base else [])]
                )
            if base == "xbcompile":  # `from xbcompile import part`; its version and its public names are no part
                yield from ((f"xbcompile.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield base, node.lineno


def allowed(part, other):
    if part == other:
        return True
    if part in ONLY:
        return other in ONLY[part]
    return RANK[other] < RANK[part]


def violations(files):
    found = []
    for path in files:
        part = part_of(module_of(path))
        if part is None:  # the package's own names are loaded from everywhere, on first use
            continue
        for name, line in imports(path):
            other = part_of(name)
            if other in RANK and not allowed(part, other):
                found.append(f"{path.relative_to(ROOT)}:{line}: {part} imports {name}")
            elif other is not None and other not in RANK and other != "__version__":
                found.append(f"{path.relative_to(ROOT)}:{line}: {part} imports the unknown {name}")
    return found


def opened_sessions(files):
    """Where onnxruntime's sessions are opened."""
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = ast.unparse(node.func)
                if name in ("ort.InferenceSession", "onnxruntime.InferenceSession"):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.fixture(scope="module")
def files():
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_every_part_has_its_place(files):
    assert {part_of(module_of(path)) for path in files} - {None} == set(RANK)


def test_order(files):
    assert violations(files) == []


def test_folders_are_imported_by_their_package_names_only(files):
    """`import targets` would work from the checkout, and fail once installed."""
    bare = set(FOLDERS) - {"xbcompile"}
    assert [(path, name) for path in files for name, _ in imports(path) if name.split(".")[0] in bare] == []


def test_sessions_are_opened_in_one_place(files):
    """Every session is quiet, on the CPU, and takes weights as arrays: `engine.open_session` sees to it."""
    assert [place.partition(":")[0] for place in opened_sessions(files)] == ["xbcompile/onnx_graph/engine.py"]


def test_command_line_starts_without_the_heavy_libraries():
    """Importing the package, its errors and the commands loads neither numpy nor onnxruntime: help comes at once."""
    import subprocess

    code = "import sys, xbcompile.cli.app; print([n for n in ('numpy', 'onnx', 'onnxruntime', 'numba') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("file", "source", "text"),
    [
        ("xbcompile/errors.py", "from xbcompile.ir import Network", "errors imports xbcompile.ir"),
        (
            "xbcompile/tiler/cuts/blocks.py",
            "import xbcompile.targets.registry",
            "tiler imports xbcompile.targets.registry",
        ),
        ("passes/pca.py", "def f():\n    from xbcompile import program", "passes imports xbcompile.program"),
        ("xbcompile/data/datasets.py", "from ..ir import Network", "data imports xbcompile.ir"),
        ("runtime/session.py", "from ..api import compile", "runtime imports xbcompile.api"),
        ("xbcompile/report/tables.py", "from xbcompile.runtime import Session", "report imports xbcompile.runtime"),
        ("xbcompile/cli/app.py", "from xbcompile.nothing import x", "cli imports the unknown xbcompile.nothing"),
        ("xbcompile/cli/app.py", "from xbcompile import __version__\nfrom xbcompile.api import compile", None),
        ("xbcompile/tiler/pack/dense.py", "from xbcompile.tiler.cuts.blocks import cut\nfrom .cut import cut", None),
    ],
)
def test_a_violation_is_seen(tmp_path, monkeypatch, file, source, text):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    found = violations([path])
    assert len(found) == (text is not None)
    assert text is None or found[0].endswith(text)
