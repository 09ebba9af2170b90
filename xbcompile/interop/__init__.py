"""Programs behind interfaces that others know.

`inference_session.py` stands in place of onnxruntime's `InferenceSession`; `onnx_backend.py` is ONNX's own backend
interface, over the exact target.
"""
