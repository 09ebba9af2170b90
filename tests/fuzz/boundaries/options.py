"""Options from Python and from the command line: of compile, plan and runs, of passes, and shapes that are planned with."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import typer
from hypothesis import strategies as st

import xbcompile
from tests.support.model_kit import MODELS
from tests.support.small_programs import dense_model, images
from xbcompile.cli.app import app
from xbcompile.errors import XbcompileError
from xbcompile.options import CompileOptions, PlanOptions
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.options import option_types
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.targets import target_names

TARGETS = target_names()
EFFORTS = [0, 0.0, 0.02, np.float64(0.02), np.int64(0), -1, float("nan"), float("inf"), 10**400, "1", None, True]
ODD: list[Any] = [
    None,
    True,
    False,
    np.True_,
    2.0,
    2.5,
    np.float32(2),
    float("nan"),
    float("inf"),
    -1,
    0,
    2**31,
    2**63,
    2**70,
    10**5000,
    np.int64(3),
    np.uint8(3),
    np.array(3),
    np.array([1, 2]),
    Fraction(2),
    Decimal(2),
    2j,
    "",
    "2",
    "x" * 3000,
    "\x1b[31m",
    "a\nb",
    "\ud800",
    b"2",
    [],
    [2],
    (2, 2),
    [[2]],
    {},
    {2},
    {"a": 1},
    {1: 2},
    object,
]
USAGE: type[Exception] = typer.BadParameter.__mro__[2]  # the base of all that typer says of wrong words
odd = st.sampled_from(ODD)
count = st.integers(0, 60) | st.sampled_from([2**k for k in range(6, 45)]) | st.integers(1, 2**20).map(np.int64)
text = st.sampled_from(["latency", "throughput", "energy", "weight-updates", "latency=1,energy=2", "energy=1e-300"])
text |= st.tuples(st.floats(min_value=0), st.floats(min_value=0)).map(lambda w: f"latency={w[0]},energy={w[1]}")
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "arrays": count | st.sampled_from([2**31 - 1, 10**6]),
    "batch": count,
    "cuts": st.sampled_from(["auto", "greedy", "balanced", "free"]),
    "packing": st.sampled_from(["auto", "dense", "in-order", "none"]),
    "objective": text,
    "digital": st.sampled_from(["fc0", ["fc*"], ("nothing",), "[", "*" * 40 + "a"]),
    "dims": st.dictionaries(st.sampled_from(["n", "x:0", "x:9", ""]), st.integers(0, 9) | odd, max_size=2),
    "batch_axis": st.dictionaries(st.sampled_from(["x", "*", "y"]), st.sampled_from([0, 1, -1, None, 2**70, "0"])),
    "keep_inputs": st.sampled_from(["x", ("w0",), []]),
    "fixed_inputs": st.dictionaries(st.sampled_from(["x", "y"]), odd | st.just([[0.5] * 6]), max_size=2),
    "passes": st.sampled_from(["", "quantize", "analogue", "thermometer{bits=8}", "quantize{scheme=binary},bitserial"]),
    "rewrite": st.sampled_from(["all", "changed", "matched"]),
    "floorplan": st.sampled_from(["8x8", "1x1", "2x2x2", "0x1", "9999999x9999999", "8x8x" + "9" * 5000, "²x2"]),
    "scramble": st.booleans(),
    "seed": st.integers(0, 2**130),
    "embed_model": st.booleans(),
    "array": st.tuples(st.integers(1, 70_000), st.integers(1, 70_000))
    | st.sampled_from([(8, 8), [3, 1], (65536, 65535)]),
    "slices": st.integers(1, 300),
}


@st.composite
def _options(draw: st.DrawFn, kind: type) -> dict[str, Any]:
    """Some fields of options: mostly values that they may have."""
    names = draw(st.sets(st.sampled_from([each.name for each in fields(kind)]), min_size=1, max_size=4))
    given = {}
    for name in sorted(names):
        usual = USUAL.get(name, st.sampled_from(EFFORTS))
        given[name] = draw(usual if name == "effort" or draw(st.integers(0, 5)) else odd)
    return {"effort": 0.0} | given


@st.composite
def _shapes(draw: st.DrawFn) -> list[Any]:
    """Matrices: some small ones, or few that are large."""
    size = st.integers(1, 40) | st.sampled_from([0, -1, 2**31 - 1, 2**31, 2.0, "4", None, 10**6])
    number = st.integers(1, 20) | st.sampled_from([10**5, 2**31 - 1, 2**40, 0, 1.0])
    entry = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(list)  # more take their time where requirements fail
    named = st.fixed_dictionaries(
        {"inputs": size, "outputs": st.integers(1, 40)},
        optional={"vectors": number, "groups": number, "slices": number, "after": st.just([]), "name": odd},
    )
    return draw(st.lists(entry | entry | named, max_size=6) | odd.map(lambda each: [each]))


@st.composite
def _passes(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A pass with values of its options from Python."""
    name = draw(st.sampled_from(pass_names()))
    types = option_types(load_pass(name))
    kinds = {
        int: st.integers(-1, 300),
        float: st.floats(),
        bool: st.booleans(),
        str: st.sampled_from(["on", "levels", ""]),
    }
    names = draw(st.sets(st.sampled_from(sorted(types)), max_size=3)) if types else set()
    return name, {each: draw(odd | kinds[types[each].kind]) for each in sorted(names)}


_argument = (
    st.text(max_size=6) | st.integers(-1, 2**70).map(str) | st.sampled_from(["nan", "1e3", "2.0", "9" * 5000, "x=1"])
)
_WORDS = """arrays batch cuts packing objective effort digital dim batch-axis keep-input input set seed passes floorplan
    rewrite target slices array require"""
_word = st.sampled_from([f"--{word}" for word in _WORDS.split()])
_VALID = """--arrays=3 --batch=1000000 --effort=0 --set=rows=8 --input=x=[[1]] --dim=n=2 --require=latency_s<=1e-3
    --require=stationary --passes=quantize{levels=2},analogue --batch-axis=x=0"""
_valid = st.sampled_from([*_VALID.split(), "--input=x=" + "[" * 3000])
_command = st.tuples(
    st.sampled_from(["compile", "plan"]),
    st.lists(_valid.map(lambda each: [each]) | st.tuples(_word, _argument).map(list), max_size=4),
)
_session = st.fixed_dictionaries(
    {},
    optional={
        "seed": odd | st.integers(0, 2**64),
        "threads": st.sampled_from([each for each in ODD if not isinstance(each, int) or each < 9 or each > 10**6]),
        "memory_bytes": odd | st.integers(1, 2**40),
        "chunk": odd | st.integers(1, 20),
        "first_sample": odd | st.integers(0, 2**40),
        "device": odd | st.sampled_from(["ideal", "physics", "m2tj4"]),
    },
)
examples = st.one_of(
    _options(CompileOptions).map(lambda given: ("compile", given)),
    st.tuples(st.just("plan"), _shapes(), _options(PlanOptions)),
    st.tuples(st.just("pass"), _passes()),
    st.tuples(st.just("command"), _command),
    st.tuples(st.just("session"), _session),
    st.tuples(st.just("target"), odd, st.tuples(odd, odd)),
)


@cache
def _program() -> Program:
    return xbcompile.compile(dense_model(6, 4, 3), "m2tj4", passes="quantize,analogue{low=0 high=1}", effort=0)


def attempt(example: tuple[Any, ...], folder: Path) -> None:
    """Give the options to what takes them, and run two samples of what comes of it."""
    feeds = {"x": images(2, 6)}
    match example:
        case "compile", options:
            program = xbcompile.compile(dense_model(6, 4, 3), _target(options), **options)
            if len(program.schedule.steps) < 10_000 and program.network.inputs:
                Session(program, threads=1).run_samples(feeds)
        case "plan", shapes, options:
            xbcompile.plan(shapes, _target(options), require=["stationary"], **options)
        case "pass", (name, options):
            made = load_pass(name)(**options)
            assert parse_pipeline(str(made)) == (made,)
            hash(made)
        case "session", given:
            run = {key: given[key] for key in ("chunk", "first_sample") if key in given}
            session = Session(_program(), **{key: value for key, value in given.items() if key not in run})
            session.run_samples(feeds, **run)
        case "target", target, (options, require):
            xbcompile.plan([[4, 4]], target, options=options, require=require)
        case "command", (command, words):
            model = MODELS / "xor.onnx"
            output = ["-o", str(folder / "p.xbar")] if command == "compile" else []
            _run([command, str(model), *output, *(each for word in words for each in word)])


def _target(options: dict[str, Any]) -> str:
    """One of the shipped targets; which follows from the options."""
    return TARGETS[len(str(sorted(options))) % len(TARGETS)]


def _run(words: list[str]) -> None:
    """The command line in this process; what it says of wrong words is a user's error too."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            typer.main.get_command(app).main(words, standalone_mode=False)
        except USAGE as error:
            raise XbcompileError(f"the command line: {' '.join(str(error).split())[:1000]}") from None


Session(_program(), threads=1).run_samples({"x": images(2, 6)})  # kernels are compiled here, as that takes its time
