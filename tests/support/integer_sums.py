"""onnxruntime as a reference for integers on processors without VNNI, whose kernels saturate sums of two products at 16 bits."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def precise_session(
    model: bytes | str, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session that keeps all bits where onnxruntime knows how.

    Args:
        model: serialized, or its path.
        options: further ones.
    """
    options = options or onnxruntime.SessionOptions()
    for precise in ("1", "0"):
        options.add_session_config_entry("session.x64quantprecision", precise)
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:  # its rewriting for that knows no such types
            if precise == "0":
                raise
    raise AssertionError


@cache
def saturates() -> bool:
    """Whether integer kernels do so here: 2 x 255 x 127 is more than 16 bits hold."""
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])],
        [helper.make_tensor("w", TensorProto.INT8, [2, 1], [127, 127])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.full((1, 2), 255, np.uint8)})
    return bool(y.item() != 2 * 255 * 127)


def within_reach(values: np.ndarray) -> np.ndarray:
    """Integers whose sums onnxruntime gets right here: of int8 half as large ones where it saturates."""
    return np.asarray(values // 2, np.int8) if values.dtype == np.int8 and saturates() else values
