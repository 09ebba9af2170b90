"""All names of onnxruntime, with the `InferenceSession` that runs models on crossbar arrays in place of its own.

import xbcompile.interop.onnxruntime as onnxruntime
"""

from __future__ import annotations

from typing import Any

import onnxruntime as _theirs

from xbcompile.interop.inference_session import InferenceSession
from xbcompile.interop.io_binding import IOBinding

__all__ = ["IOBinding", "InferenceSession"]


def __getattr__(name: str) -> Any:
    return getattr(_theirs, name)


def __dir__() -> list[str]:
    return sorted({*dir(_theirs), *__all__})
