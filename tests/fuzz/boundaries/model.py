"""Model files from strangers: damaged ones, and small ones that ask for more than there is.

Each is compiled to a small target, explained and planned. What the compiler may use is less here than it is by default, so that
an example is done within its time: the limits are the same constants.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

import xbcompile
from tests.fuzz import growing_models as growing
from tests.fuzz.mutated_models import MODEL, Files
from tests.fuzz.mutations import OF_BYTES, mutated
from xbcompile.errors import XbcompileError
from xbcompile.frontend import calls, fold, runs, sample_probe
from xbcompile.frontend import growth as budget
from xbcompile.frontend.explain import explain
from xbcompile.onnx_graph import engine, tensors
from xbcompile.planning.plan import plan
from xbcompile.targets import load_target
from xbcompile.verification import probes

LIMITS: list[tuple[Any, str, float]] = [
    (budget, "MOST_GROWTH_BYTES", 2**20),
    (fold, "LARGEST_GROWTH_BYTES", 2**18),
    (calls, "MOST_WRITTEN_OUT", 300),
    (budget, "MOST_COPIED_NODES", 300),
    (tensors, "LARGEST_DENSE_BYTES", 2**18),
    (engine, "PROBE_SECONDS", 0.5),
    (engine, "PROBE_BYTES", 2**27),
    (runs, "LARGEST_STEPS", 64),
    (sample_probe, "LARGEST_INPUT", 2**18),
    (probes, "LARGEST_PROBE", 2**18),
]

sizes = st.sampled_from(growing.SIZES)
counts = st.sampled_from(growing.COUNTS)
flags = st.booleans()
few_sizes = st.lists(sizes, min_size=0, max_size=4).map(tuple)

FLOAT_AND_DOUBLE = (TensorProto.FLOAT, TensorProto.DOUBLE)
WINDOWED = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool")
TYPED = (
    "Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN", "Softmax", "Relu", "Erf", "Gelu", "LayerNormalization",
    "Resize", "CumSum", "TopK",
)  # fmt: skip
TYPES = tuple(sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING}))
windows = st.fixed_dictionaries(
    {},
    optional={
        "group": sizes,
        "auto_pad": st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]),
        **{each: st.lists(sizes, min_size=1, max_size=6) for each in ("strides", "dilations", "pads", "kernel_shape")},
    },
).map(lambda found: tuple(sorted((name, tuple(v) if isinstance(v, list) else v) for name, v in found.items())))

# What is made, and its arguments.
made = st.one_of(
    st.tuples(st.just("growing"), st.sampled_from(sorted(growing.GROWING)), flags, st.integers(0, 3), sizes, sizes),
    st.tuples(
        st.just("window"), st.sampled_from(WINDOWED), windows, st.integers(1, 3), st.sampled_from(FLOAT_AND_DOUBLE)
    ),
    st.tuples(st.just("functions"), counts.filter(lambda n: n < 100), st.integers(0, 3), flags, flags),
    st.tuples(
        st.just("loops"),
        st.integers(0, 30),
        st.sampled_from([-1, *growing.SIZES]),
        st.sampled_from(["If", "Loop"]),
        flags,
    ),
    st.tuples(
        st.just("recurrent"),
        st.sampled_from(["LSTM", "GRU", "RNN"]),
        sizes,
        st.sampled_from([2, 0, -1, 2**31]),
        st.integers(0, 1),
    ),
    st.tuples(st.just("chain"), counts, st.sampled_from(["Relu", "MatMul", "Neg"])),
    st.tuples(st.just("shapes"), few_sizes, st.integers(0, 4)),
    st.tuples(st.just("sparse"), few_sizes, st.integers(1, 3)),
    st.tuples(st.just("empty_weights"), few_sizes),
    st.tuples(
        st.just("named"), st.sampled_from([1, 300, 9_999, 10_001, 10**6]), st.sampled_from(["x", "\n", "é", " ", "/"])
    ),
    st.sampled_from(sorted(growing.REWRITTEN)).flatmap(
        lambda operator: st.tuples(
            st.just("rewritten"),
            st.just(operator),
            st.sampled_from(["", *growing.REWRITTEN[operator][4]]),
            st.sampled_from(growing.ODD),
            st.integers(0, 4),
            st.sampled_from([each for each in growing.ODD if not isinstance(each, str)]),
        )
    ),
    st.tuples(st.just("of_type"), st.sampled_from(TYPED), st.sampled_from(TYPES)),
)
seeds = st.integers(0, 2**32 - 1)
examples = st.one_of(
    made.map(lambda arguments: (*arguments, None)),
    st.tuples(st.just("mutated"), seeds, st.none()),
    st.builds(lambda arguments, seed: (*arguments, seed), made, seeds),
)


def attempt(example: tuple[Any, ...], folder: Path) -> None:
    """Compile, explain and plan what the example says, in a folder of its own."""
    for name, content in files_of(example).items():
        (folder / name).write_bytes(content)
    path = folder / MODEL
    target = load_target("ideal").with_quantities("small", rows=32, columns=32)
    refused = []
    with ExitStack() as stack:
        for module, name, value in LIMITS:
            stack.enter_context(patch.object(module, name, value))
        for work in (
            lambda: xbcompile.compile(path, target, effort=0),
            lambda: explain(path),
            lambda: plan(path, target, effort=0),
        ):
            try:
                work()
            except XbcompileError as error:
                refused.append(error)
    if refused:
        raise refused[0]


def files_of(example: tuple[Any, ...]) -> Files:
    """The files of an example, damaged as its last entry says."""
    what, *arguments, seed = example
    if what == "mutated":
        return mutated(arguments[0])[1]
    if what == "window":
        operator, attributes, rank, element_type = arguments
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in attributes}
        model = growing.window(operator, found, rank, element_type)
    else:
        model = getattr(growing, what)(*arguments)
    content = model.SerializeToString()
    return {MODEL: content if seed is None else _damaged(content, seed)}


def _damaged(content: bytes, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    return OF_BYTES[int(random.integers(len(OF_BYTES)))](content, random)
