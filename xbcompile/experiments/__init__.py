"""The published systems as experiments, what assumed numbers are worth, and the error study of multistate arrays.

`reproduction.py` (read it first) says what an experiment is, `measurement.py` and `figure.py` what other numbers and figures are;
`systems/` lists those of `xbcompile reproduce`, a file a paper, and `shared.py` keeps what several of them need.
`sensitivity.py` is `xbcompile sensitivity`; `study.py` and `random_products.py` are `xbcompile study`.
"""
