"""The ideal meaning of a network as a plain ONNX model, the host graph, which onnxruntime runs without us.

`host_graph.py` (read it first) writes it, `host_recurrence.py` its recurrences; `evaluate.py` runs it.
"""
