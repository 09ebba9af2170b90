"""What a user writes, with the types that a checker must find; `make types` checks it, and a test runs it."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import onnx

import xbcompile


def use(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    """Compile, run, ask."""
    program = xbcompile.compile(model, target="mram64", calibration=images, progress=False)
    assert_type(program, xbcompile.Program)
    assert_type(program.digest, str)
    session = xbcompile.Session(program, seed=1)
    assert_type(session.run_samples((images, labels)), dict[str, Any])
    result = xbcompile.run(program, (images, labels), seed=1)
    assert_type(result, xbcompile.Run)
    assert_type(result.accuracy, float | None)
    assert_type(xbcompile.verify(program), list[str])
    corrections = xbcompile.commission(program)
    again = program.run((images, labels), seed=0, corrections=corrections)
    assert_type(again.cost.energy_j, float)
    plan = xbcompile.plan(program, require=["stationary"])
    assert_type(plan.fits, bool)
    drop_in = xbcompile.InferenceSession(program)
    assert_type([value.name for value in drop_in.get_inputs()], list[str])
    return 0.0 if result.accuracy is None else result.accuracy
