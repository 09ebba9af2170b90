"""Verification: a program checked against itself, without trust in what made it.

`verify.py` (read it first) runs all checks: schedule tables (`schedule_checks.py`), traffic between arrays, counted
anew (`traffic.py`), codes, and the runtime on the exact device against the host graph in onnxruntime on the inputs of
`probes.py`. Nothing here imports the tiler.
"""
