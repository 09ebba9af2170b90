"""Descriptions of targets: bytes, tables edited key by key and written as TOML again, and numbers set on the command line."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import xbcompile
from tests.support.model_kit import MODELS
from xbcompile.cli.targeting import changed_target
from xbcompile.runtime import Session
from xbcompile.targets import Target, load_target, registry

FOLDER = Path(registry.__file__).parent
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.toml"))}
DECLARED = {name: load_target(name).declared for name in TEXTS}
ODD = [
    None,
    True,
    "",
    "4",
    "\x1b[31m",
    "[/]",
    "x" * 5000,
    [],
    [[]],
    {},
    {"value": 4},
    0,
    -1,
    0.5,
    2**31,
    2**63,
    2**70,
    10**400,
    -(2**63),
    1e-300,
    5e-324,
    1e300,
    math.inf,
    math.nan,
]
MOST_CELLS = 20_000  # of an array that is simulated; more are only read
INPUTS = {"input": np.float32([[0, 1], [1, 1]])}


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _written(value: Any) -> str:
    """A value as TOML has it; None as a word that is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf") if math.isinf(value) else repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_written(each)}" for key, each in value.items()) + "}"
    return str(value)


def _file(table: dict[str, Any]) -> str:
    """A description's table as a file."""
    lines = []
    for key, value in sorted(table.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            lines += [
                f"[{json.dumps(key)}]",
                *(f"{json.dumps(name)} = {_written(each)}" for name, each in value.items()),
            ]
        else:
            lines.append(f"{json.dumps(key)} = {_written(value)}")
    return "\n".join(lines)


@st.composite
def _numbers(draw: st.DrawFn, target: str, name: str) -> Any:
    """A value of one quantity: most are allowed, some at the ends, some are none at all."""
    declared = DECLARED[target].get(name)
    if declared is None or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(ODD) | st.integers(-(2**70), 2**70) | st.floats())
    ends = [declared.low, declared.high, *([] if declared.none is None else [declared.none])]
    if declared.kind is float:
        middle = st.floats(declared.low, declared.high)
        if declared.low > 0:
            middle |= st.floats(math.log(declared.low), math.log(declared.high)).map(math.exp)
        return draw(st.sampled_from([float(end) for end in ends]) | middle)
    return draw(st.sampled_from([int(end) for end in ends]) | st.integers(int(declared.low), int(declared.high)))


@st.composite
def _tables(draw: st.DrawFn) -> str:
    """A shipped description with some keys edited."""
    target = draw(st.sampled_from(sorted(TEXTS)))
    table = tomllib.loads(TEXTS[target])
    quantities = dict(table["quantities"])
    for _ in range(draw(st.integers(1, 4))):
        edit = draw(st.sampled_from(["number", "number", "number", "number", "field", "key", "remove", "range"]))
        name = draw(st.sampled_from(sorted(DECLARED[target])))
        entry = {
            "value": 1,
            "unit": DECLARED[target][name].unit,
            "source": "assumed: a test",
            **quantities.get(name, {}),
        }
        if edit == "number":
            quantities[name] = {**entry, "value": draw(_numbers(target, name))}
        elif edit == "field":
            quantities[name] = {**entry, draw(st.sampled_from(["unit", "source", "v"])): draw(st.sampled_from(ODD))}
        elif edit == "key":
            table[draw(st.sampled_from([*sorted(table), "assumed", "extends"]))] = draw(st.sampled_from([*ODD, *TEXTS]))
        elif edit == "remove":
            quantities.pop(name, None)
        else:
            table["assumed"] = {name: [draw(_numbers(target, name)), draw(_numbers(target, name))]}
    if isinstance(table.get("quantities"), dict):
        table["quantities"] = quantities
    return _file(table)


@st.composite
def _contents(draw: st.DrawFn) -> bytes:
    """The bytes of a shipped description with some replaced, or of no description."""
    content = bytearray(TEXTS[draw(st.sampled_from(sorted(TEXTS)))].encode())
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(content)))
        rest = at + draw(st.sampled_from([0, 1, 5, len(content)]))
        content[at:rest] = draw(st.binary(max_size=8) | st.sampled_from(LUMPS))
    return bytes(content)


LUMPS = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b'"""',
    b"a=" + _deep(5000).encode(),
    b"a" + b".a" * 1500 + b"=1\n",
    b"[" + b"a." * 1500 + b"a]\n",
    b"\n".join(b"[" for _ in range(3000)),
    b"x = 1e400\n",
    b"rows = " + b"9" * 3000,
]
_setting = st.sampled_from(sorted(TEXTS)).flatmap(
    lambda target: st.tuples(
        st.just(target),
        st.lists(
            st.sampled_from(sorted(DECLARED[target])).flatmap(
                lambda name: _numbers(target, name).map(lambda value: f"{name}={value}")
            )
            | st.sampled_from(["self=1", "source=2", "rows", "=", "rows=", "=3", "rows=nan", "rows=1e400", "rows=٣"])
            | st.text(max_size=12),
            max_size=3,
        ),
    )
)
examples = st.one_of(
    _tables().map(lambda text: ("file", text.encode("utf-8", "surrogatepass"))),
    _tables().map(lambda text: ("file", text.encode("utf-8", "surrogatepass"))),
    _contents().map(lambda content: ("file", content)),
    _setting.map(lambda chosen: ("set", chosen)),
)


def attempt(example: tuple[str, Any], folder: Path) -> None:
    """Read the description, compile xor for it, run two samples."""
    kind, given = example
    if kind == "file":
        path = folder / "chip.toml"
        path.write_bytes(given)
        target = load_target(path)
    else:
        target = changed_target(given[0], given[1])
    spec = target.array_spec
    if spec.rows * spec.columns > MOST_CELLS:  # what is allowed, takes its time
        return
    _run(target)


def _run(target: Target) -> None:
    program = xbcompile.compile(MODELS / "xor.onnx", target, effort=0)
    Session(program, threads=1).run_samples(INPUTS)


for _name in TEXTS:  # kernels are compiled here, as that takes its time
    _run(load_target(_name))
