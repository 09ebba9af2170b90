"""The rewritings of single operators as standard nodes, one file per family.

`linear_models.py` is the shortest, read it first; `frontend/operators.py` says which operator has which.
"""
