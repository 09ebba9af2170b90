"""ONNX's own backend tests through plain onnxruntime and through xbcompile: `python tests/fuzz/onnx_backend_suite.py [PATTERN]`.

Each test is run by the suite's own code, with its own tolerances and expected outputs. A test that plain onnxruntime does
not pass is none of ours; every other one must pass.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
import unittest
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep

from xbcompile.interop.onnx_backend import XbcompileBackend


class OnnxruntimeRep(BackendRep):
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        names = [value.name for value in self.session.get_inputs()]
        # Some tests hand over numpy scalars, which onnxruntime takes as arrays only.
        values = [np.asarray(value) if isinstance(value, np.generic) else value for value in inputs]
        return tuple(self.session.run(None, dict(zip(names, values, strict=False))))


class OnnxruntimeBackend(Backend):
    """Plain onnxruntime at its default level of optimisation."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> OnnxruntimeRep:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        return OnnxruntimeRep(onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


class CompilingBackend(XbcompileBackend):
    """Ours; a model that it does not import is a failure and not a test to be skipped."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return True


def with_constants(case: Any) -> Iterator[Any]:
    """A node test again, with all its tensors but the first, and but the last, made constants of the model.

    The suite's own tests have no constants, so that no matrix of theirs is one that arrays could hold.
    """
    if case.model is None or len(case.data_sets) != 1:
        return
    values, expected = case.data_sets[0]
    tensors = [i for i, v in enumerate(case.model.graph.input) if v.type.HasField("tensor_type") and i < len(values)]
    if len(tensors) < 2 or len(values) != len(case.model.graph.input):
        return
    for kept in (tensors[0], tensors[-1]):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        model.ir_version = max(model.ir_version, 4)  # the first in which an initializer need not be an input
        del model.graph.input[:]
        free = [i for i in range(len(values)) if i == kept or i not in tensors]
        model.graph.input.extend(case.model.graph.input[i] for i in free)
        for i in tensors:
            if i != kept:
                value, name = values[i], case.model.graph.input[i].name
                tensor = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value))
                model.graph.initializer.add().CopyFrom(tensor)
                model.graph.initializer[-1].name = name
        data = [([values[i] for i in free], expected)]
        halves = any(getattr(value, "dtype", None) == np.float16 for value in (*values, *expected))
        rtol = max(case.rtol, 2**-9) if halves else case.rtol  # two units in the last place: float16 rounds once more
        name = f"{case.name}_constant_but_{'first' if kept == tensors[0] else 'last'}"
        yield replace(case, name=name, model=model, data_sets=data, rtol=rtol)


class Suite:
    """The suite's tests, each a function of a backend."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the suite divides by zero while it makes its expected outputs
            from onnx.backend.test.loader import load_model_tests
            from onnx.backend.test.runner import Runner

            self._runner = Runner(OnnxruntimeBackend)
            for case in load_model_tests(kind="node"):
                for bound in with_constants(case):
                    self._runner._add_model_test(bound, "Node")
        self.tests = {
            f"{category} {name.removesuffix('_cpu')}": item.func
            for category, items in self._runner._test_items.items()
            for name, item in items.items()
            if name.endswith("_cpu")
        }

    def run(self, name: str, backend: type[Backend]) -> str:
        """Run one test; the reason why it failed, or nothing."""
        self._runner.backend = backend
        try:
            self.tests[name](unittest.TestCase())
        except Exception as error:  # whatever a backend raises
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        return ""


def compare(suite: Suite, names: list[str]) -> Iterator[tuple[str, str, str, float]]:
    """For each test: its name, why onnxruntime fails, why we fail where it does not, and our seconds."""
    for name in names:
        reference = suite.run(name, OnnxruntimeBackend)
        start = time.perf_counter()
        ours = "" if reference else suite.run(name, CompilingBackend)
        yield name, reference, ours, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="", help="regular expression that names must match")
    parser.add_argument("--reference", action="store_true", help="also list what onnxruntime itself does not pass")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONNX_MODELS"] = folder  # where the suite puts the light models' inputs
        suite = Suite()
        names = [name for name in suite.tests if re.search(arguments.pattern, name)]
        results = list(compare(suite, names))
    passed = [(name, ours, seconds) for name, reference, ours, seconds in results if not reference]
    for name, reference, ours, _ in results:
        if ours:
            print(f"FAILED {name}: {ours}")
        elif reference and arguments.reference:
            print(f"onnxruntime {name}: {reference[:200]}")
    print(f"tests: {len(results)}")
    print(f"passed by onnxruntime {onnxruntime.__version__}: {len(passed)}")
    print(f"of those passed by xbcompile: {sum(not ours for _, ours, _ in passed)}")
    for name, _, seconds in sorted(passed, key=lambda row: -row[2])[:10]:
        print(f"  {seconds:6.2f} s {name}")


if __name__ == "__main__":
    main()
