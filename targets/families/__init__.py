"""Device families: simulated arrays, one file per kind of physics.

`ideal.py` is exact and the shortest, read it first; `conductance_array.py` and `resistance_sum.py` are the bases of
those that add currents and resistances. A target file names its family and gives the numbers.
"""
