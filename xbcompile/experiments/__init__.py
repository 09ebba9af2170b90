"""The published systems as experiments, and the error study of multistate arrays.

`reproduction.py` (read it first) says what an experiment is, `systems.py` lists those of `xbcompile reproduce`;
`study.py` and `random_products.py` are `xbcompile study`.
"""
