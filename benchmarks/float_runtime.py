"""The model itself, in float, without arrays: onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.work import WORKS, batches


def open_model(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session on so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def float_outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The model's first output."""
    found: np.ndarray = open_model(model, 1).run(None, feeds)[0]
    return found


class FloatSide:
    """A session for each number of threads, batch after batch."""

    def __init__(self, name: str) -> None:
        work = WORKS[name]
        self.model = work.model()
        self.batches = batches(work.inputs(self.model, work.samples), work.batch)
        self.sessions: dict[int, onnxruntime.InferenceSession] = {}
        self.facts: dict[str, Any] = {"samples": work.samples}

    def run(self, threads: int) -> None:
        if threads not in self.sessions:
            self.sessions[threads] = open_model(self.model, threads)
        for feeds in self.batches:
            self.sessions[threads].run(None, feeds)
