"""The order of imports, and each "never" of the architecture as a rule; imports inside functions included.

Every rule has an example of what it forbids, which it must find.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import onnx.defs
import pytest

from xbcompile import passes

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "xbcompile": "xbcompile",
    "passes": "xbcompile.passes",
    "runtime": "xbcompile.runtime",
    "targets": "xbcompile.targets",
}
MOST_MODULES = 12  # directly in `xbcompile/`
MOST_LINES = 500  # of a file
PASSES = set(passes.pass_names())

# From the bottom to the top; parts of one row do not import each other.
ORDER = [
    {"errors", "names", "notebook", "units"},
    {"files", "whole_numbers"},
    {"kernel_cache"},
    {"deferred"},
    {"ir", "extensions"},
    {"data", "onnx_graph", "tiler", "targets"},
    {"reference"},
    {"frontend", "passes"},
    {"options"},
    {"program"},
    {"runtime"},
    {"verification", "diagnosis"},
    {"planning"},
    {"report"},
    {"export"},
    {"api"},
    {"interop", "experiments"},
    {"cli"},
    {"testing", "__main__"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
# Less than the order would allow: data knows of models what onnx has and what counts as a sample, reports only show what a
# program or a plan holds, and the traffic that verification counts of it.
ONLY = {
    "data": {"errors", "ir"},
    "report": {"deferred", "errors", "notebook", "units", "ir", "onnx_graph", "program", "planning", "verification"},
}

# What breaks a rule today: rule and file. An entry that is no longer needed fails, too.
NOT_YET: set[tuple[str, str]] = set()
# Files that import each other today.
CIRCLES_NOT_YET: set[frozenset[str]] = set()


def module_of(path: Path) -> str:
    """Dotted name of a source file, as it is imported."""
    relative = path.relative_to(ROOT).with_suffix("")
    names = [FOLDERS[relative.parts[0]], *relative.parts[1:]]
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def part_of(module: str) -> str | None:
    """`xbcompile.tiler.cuts.blocks` belongs to `tiler`; the package itself to no part."""
    names = module.split(".")
    return names[1] if names[0] == "xbcompile" and len(names) > 1 else None


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module or name of one that a file imports, anywhere in it, with its line; relative names made absolute."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def allowed(part: str, other: str) -> bool:
    if part == other:
        return True
    if part in ONLY:
        return other in ONLY[part]
    return RANK[other] < RANK[part]


def violations(files: Iterable[Path]) -> list[str]:
    """Imports against the order."""
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


Finder = Callable[[Path], Iterator[tuple[str, int]]]


@dataclass(frozen=True)
class Never:
    """One rule.

    Args:
        words: the rule.
        inside: where it holds: a file or folder of the repository.
        find: what breaks it in one file, with its line.
        outside: folders within `inside` where it does not hold.
    """

    words: str
    inside: tuple[str, ...]
    find: Finder
    outside: tuple[str, ...] = ()

    def holds_in(self, path: Path) -> bool:
        name = path.relative_to(ROOT).as_posix()
        return name.startswith(self.inside) and not (self.outside and name.startswith(self.outside))


def importing(forbidden: str, *, but: str = "$^") -> Finder:
    """Imports whose dotted name begins with one pattern and is not all of the other."""

    def find(path: Path) -> Iterator[tuple[str, int]]:
        for name, line in imports(path):
            if re.match(rf"({forbidden})(\.|$)", name) and not re.fullmatch(but, name):
                yield f"imports {name}", line

    return find


def strings(path: Path) -> Iterator[tuple[str, int]]:
    """Text constants that are no documentation."""
    tree = parsed(path)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value, node.lineno


def onnx_operators(path: Path) -> Iterator[tuple[str, int]]:
    """Names of operators, questions for one, and what nodes are made with."""
    yield from importing("onnx")(path)
    operators = {schema.name for schema in onnx.defs.get_all_schemas()}
    yield from ((f"names {text}", line) for text, line in strings(path) if text in operators)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and node.attr == "op_type":
            yield "reads op_type", node.lineno


def opened_sessions(path: Path) -> Iterator[tuple[str, int]]:
    """Where onnxruntime's sessions are opened; that of `interop` has the same name and is another."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "ort.InferenceSession",
            "onnxruntime.InferenceSession",
        ):
            yield "opens a session", node.lineno


def pass_names(path: Path) -> Iterator[tuple[str, int]]:
    """Names of passes: as a whole text, in a pipeline, or one with a hyphen anywhere; `analogue` in a sentence is a word."""
    for text, line in strings(path):
        words = re.split(r"[\s,'\"`]+", text)
        named = [word for word in words if word.partition("{")[0] in PASSES and re.search("[-{]", word)]
        named += [text] if set(text.split(",")) & set(PASSES) else []
        yield from ((f"names {word}", line) for word in named)


UNITS = re.compile(r".*_(ohm|siemens|volt|ampere|farad|watt|joule|hertz|hz|j|s|v|a|k|m)")


def hardware_numbers(path: Path) -> Iterator[tuple[str, int]]:
    """Numbers given to what has a unit: assigned, a default, or an argument. 0 and 1 are no measurements."""
    for node in ast.walk(parsed(path)):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [(ast.unparse(target), node.value) for target in targets]
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            with_default = positional[len(positional) - len(node.defaults) :]
            defaults = [
                *zip(with_default, node.defaults, strict=True),
                *zip(node.kwonlyargs, node.kw_defaults, strict=True),
            ]
            pairs = [(argument.arg, value) for argument, value in defaults]
        elif isinstance(node, ast.keyword) and node.arg:
            pairs = [(node.arg, node.value)]
        for name, value in pairs:
            number = (
                isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value not in (0, 1)
            )
            if number and UNITS.fullmatch(name.lower()):
                yield f"gives {name} the value {ast.unparse(value)}", value.lineno  # type: ignore[arg-type, union-attr]


NEVERS = [
    Never(
        "a chip never sees a layer",
        ("targets/",),
        importing(
            r"xbcompile\.(?!deferred|errors|names|notebook|units|whole_numbers|extensions|targets)\w+",
            but=r"xbcompile\.ir(\.array_spec)?\.ArraySpec",
        ),
    ),
    Never("the runtime never imports the frontend", ("runtime/",), importing(r"xbcompile\.frontend")),
    Never("the runtime never sees an ONNX operator and builds no ONNX nodes", ("runtime/",), onnx_operators),
    Never(
        "the tiler never sees a resistance",
        ("xbcompile/tiler/",),
        importing(r"xbcompile\.(?!deferred|errors|names|units|ir|tiler)\w+"),
    ),
    Never(
        "no hardware number lives outside targets",
        tuple(f"{folder}/" for folder in FOLDERS),
        hardware_numbers,
        ("targets/", "xbcompile/experiments/"),  # a published study's own conditions
    ),
    Never(  # every session is quiet, on the CPU, and takes weights as arrays: `engine.open_session` sees to it
        "sessions are opened in one place",
        tuple(f"{folder}/" for folder in FOLDERS),
        opened_sessions,
        ("xbcompile/onnx_graph/engine.py",),
    ),
    Never("the command line names no pass", ("xbcompile/cli/",), pass_names),
    Never(
        "the command line imports no pass",
        ("xbcompile/cli/",),
        importing(r"xbcompile\.passes", but=r"xbcompile\.passes\.(pass_names|load_pass|(pipeline|contract)\.\w+)"),
    ),
    Never(
        "verification trusts nothing that made what it checks",
        ("xbcompile/verification/",),
        importing(r"xbcompile\.(tiler|planning|frontend|passes|api)"),
    ),
]


def broken(rule: Never, files: Iterable[Path]) -> dict[str, list[str]]:
    """What breaks a rule, by file."""
    found: dict[str, list[str]] = {}
    for path in files:
        if rule.holds_in(path):
            name = path.relative_to(ROOT).as_posix()
            lines = [f"{name}:{line}: {what}; {rule.words}" for what, line in rule.find(path)]
            found |= {name: lines} if lines else {}
    return found


def circles(files: Iterable[Path]) -> list[frozenset[str]]:
    """Sets of modules that import each other, directly or through others. The package itself only names what it loads."""
    paths = {module_of(path): path for path in files}
    graph = nx.DiGraph()
    for module, path in paths.items():
        for name, _ in imports(path):
            other = name if name in paths else name.rpartition(".")[0]
            if other in paths and "xbcompile" not in (module, other):
                graph.add_edge(module, other)
    own = [frozenset({module}) for module in nx.nodes_with_selfloops(graph)]
    return own + [frozenset(each) for each in nx.strongly_connected_components(graph) if len(each) > 1]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_every_part_has_its_place(files: list[Path]) -> None:
    assert {part_of(module_of(path)) for path in files} - {None} == set(RANK)


def test_order(files: list[Path]) -> None:
    assert violations(files) == []


@pytest.mark.parametrize("rule", NEVERS, ids=lambda rule: rule.words)
def test_never(rule: Never, files: list[Path]) -> None:
    found = broken(rule, files)
    excused = {name for words, name in NOT_YET if words == rule.words}
    assert [line for name, lines in found.items() if name not in excused for line in lines] == []
    assert excused - set(found) == set(), "no longer needed in NOT_YET"


def test_what_is_not_yet_so_names_rules() -> None:
    assert {words for words, _ in NOT_YET} <= {rule.words for rule in NEVERS}


def test_no_circle_between_files(files: list[Path]) -> None:
    assert set(circles(files)) == CIRCLES_NOT_YET


def test_few_modules_directly_in_the_package() -> None:
    assert len(list((ROOT / "xbcompile").glob("*.py"))) <= MOST_MODULES


def test_no_long_file() -> None:
    folders = [*FOLDERS, "models", "tests", "benchmarks"]
    sizes = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for f in folders for path in (ROOT / f).rglob("*.py")
    }
    assert len(sizes) > 100
    assert [str(path) for path, lines in sizes.items() if lines > MOST_LINES] == []


def test_folders_are_imported_by_their_package_names_only(files: list[Path]) -> None:
    """`import targets` would work from the checkout, and fail once installed."""
    bare = set(FOLDERS) - {"xbcompile"}
    assert [(path, name) for path in files for name, _ in imports(path) if name.split(".")[0] in bare] == []


def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: dict[str, str]) -> list[Path]:
    """Source files in a repository of their own."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return [tmp_path / name for name in sources]


@pytest.mark.parametrize(
    ("file", "source", "text"),
    [
        ("xbcompile/errors.py", "from xbcompile.ir import Network", "errors imports xbcompile.ir.Network"),
        (
            "xbcompile/tiler/cuts/blocks.py",
            "import xbcompile.targets.registry",
            "tiler imports xbcompile.targets.registry",
        ),
        ("passes/pca.py", "def f():\n    from xbcompile import program", "passes imports xbcompile.program"),
        ("xbcompile/data/datasets.py", "from ..onnx_graph import engine", "data imports xbcompile.onnx_graph.engine"),
        ("runtime/session.py", "from ..api import compile", "runtime imports xbcompile.api.compile"),
        (
            "xbcompile/report/tables.py",
            "from xbcompile.runtime import Session",
            "report imports xbcompile.runtime.Session",
        ),
        ("xbcompile/cli/app.py", "from xbcompile.nothing import x", "cli imports the unknown xbcompile.nothing.x"),
        ("xbcompile/cli/app.py", "from xbcompile import __version__\nfrom xbcompile.api import compile", None),
        ("xbcompile/tiler/pack/dense.py", "from xbcompile.tiler.cuts.blocks import cut\nfrom .cut import cut", None),
    ],
)
def test_a_violation_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str, text: str | None
) -> None:
    found = violations(written(tmp_path, monkeypatch, {file: source}))
    assert len(found) == (text is not None)
    assert text is None or found[0].endswith(text)


@pytest.mark.parametrize(
    ("file", "source", "words"),
    [
        ("targets/registry.py", "from xbcompile.ir.layer import MatrixLayer", "a chip never sees a layer"),
        ("targets/registry.py", "from xbcompile.ir import ArraySpec, Network", "a chip never sees a layer"),
        ("targets/registry.py", "import xbcompile.program", "a chip never sees a layer"),
        ("targets/registry.py", "from xbcompile.errors import TargetError\nfrom xbcompile.ir import ArraySpec", None),
        ("runtime/session.py", "def f():\n    from xbcompile.frontend import load_model", "the runtime never imports"),
        ("runtime/session.py", "from onnx import helper", "the runtime never sees an ONNX operator"),
        ("runtime/session.py", "if kind == 'Conv': pass", "the runtime never sees an ONNX operator"),
        ("runtime/session.py", "if node.op_type in known: pass", "the runtime never sees an ONNX operator"),
        ("runtime/session.py", "'Conv'\nimport onnxruntime", None),
        ("xbcompile/tiler/layout.py", "from xbcompile.targets import Target", "the tiler never sees a resistance"),
        ("xbcompile/tiler/layout.py", "from xbcompile.ir import ArraySpec", None),
        ("xbcompile/api/compiling.py", "t_read_s = 9e-8", "no hardware number"),
        ("passes/planes.py", "def f(low=0, r_high_ohm=1e4): pass", "no hardware number"),
        ("runtime/cost.py", "def f(*, e_read_j: float = 2e-12): pass", "no hardware number"),
        ("xbcompile/api/compiling.py", "spec(v_read_volt=0.2)", "no hardware number"),
        ("xbcompile/api/compiling.py", "tick_s = 1.0\nbits = 8\ntotal_s = f(3)", None),
        ("targets/families/ideal.py", "t_read_s = 9e-8", None),
        ("runtime/session.py", "session = ort.InferenceSession(model)", "sessions are opened in one place"),
        ("xbcompile/onnx_graph/engine.py", "session = ort.InferenceSession(model)", None),
        ("xbcompile/cli/running.py", "pipeline = f'pca,planes{{cells={n}}}'", "the command line names no pass"),
        ("xbcompile/cli/running.py", "ideas = ['use-spare-cells']", "the command line names no pass"),
        ("xbcompile/cli/running.py", "known = name == 'planes'", "the command line names no pass"),
        ("xbcompile/cli/running.py", "help = 'Compile for analogue arrays, in planes.'", None),
        ("xbcompile/cli/running.py", "def f():\n    'Runs pca.'", None),
        (
            "xbcompile/cli/running.py",
            "from xbcompile.passes.pca import PrincipalComponents",
            "the command line imports",
        ),
        ("xbcompile/cli/running.py", "from xbcompile.passes.contract import Pass", None),
        ("xbcompile/verification/verify.py", "from xbcompile.tiler import plan_layout", "verification trusts nothing"),
        ("xbcompile/verification/verify.py", "from xbcompile.runtime import Session", None),
    ],
)
def test_a_broken_never_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str, words: str | None
) -> None:
    paths = written(tmp_path, monkeypatch, {file: source})
    found = [rule.words for rule in NEVERS if broken(rule, paths)]
    assert len(found) == (words is not None)
    assert words is None or found[0].startswith(words)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"runtime/a.py": "from xbcompile.runtime.b import f", "runtime/b.py": "from xbcompile.runtime import c"}, []),
        (
            {
                "runtime/a.py": "from xbcompile.runtime.b import f",
                "runtime/b.py": "from xbcompile.runtime import c",
                "runtime/c.py": "def f():\n    import xbcompile.runtime.a",
            },
            [{"xbcompile.runtime.a", "xbcompile.runtime.b", "xbcompile.runtime.c"}],
        ),
        (
            {"xbcompile/ir/__init__.py": "from .b import f", "xbcompile/ir/b.py": "import xbcompile.ir.b"},
            [{"xbcompile.ir.b"}],
        ),
    ],
)
def test_a_circle_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: dict[str, str], expected: list[set[str]]
) -> None:
    found = circles(written(tmp_path, monkeypatch, sources | {"runtime/__init__.py": ""}))
    assert [set(each) for each in found] == expected
