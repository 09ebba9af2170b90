"""Programs behind interfaces that others know.

`inference_session.py` stands in place of onnxruntime's `InferenceSession` (`io_binding.py` and `node_args.py` are what it hands
out), and `onnxruntime.py` in place of that package; `onnx_backend.py` is ONNX's own backend interface, over the exact target.
"""
