"""Errors that are of the kinds that onnxruntime raises, too, so that whoever catches these catches ours."""

from __future__ import annotations

from onnxruntime.capi import onnxruntime_pybind11_state as ort

from xbcompile.errors import DataError, RunError


class Refused(RunError, NotImplementedError):
    """A part of onnxruntime's interface that means nothing for arrays; the message says why."""


class InvalidInput(DataError, ort.InvalidArgument):
    """An input or output that the model does not have, or an input of another type or shape."""


class MissingInput(DataError, ValueError):
    """An input is missing."""


class FailedRun(DataError, ort.Fail, ort.RuntimeException):
    """onnxruntime cannot run the model on these inputs."""


class BindingError(DataError, RuntimeError):
    """What is bound does not fit the model, or lies in memory of another device; onnxruntime raises RuntimeError."""
