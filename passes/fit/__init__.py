"""Quantizers: level codes of weight columns, their scales and offsets.

`least_squares.py` (read it first) is globally optimal in the weights, `data_aware.py` in a layer's outputs,
`plane_fit.py` for sums of several cells; `exact_codes.py` finds codes of weights that lie on a grid already.
"""
