"""Tools for ONNX models that know nothing of arrays.

`graph.py` (read it first) is the form in which models are worked on; `split_model.py` keeps large tensors apart from
the protobuf message. `tensors.py`, `types.py` and `dimensions.py` read tensors, types and open dimensions; `engine.py`
knows the installed onnxruntime.
"""
