"""Placement of arrays on the sites of a floorplan, so that few values travel far.

`place.py` (read it first) is the way in: a quadratic assignment problem. `traffic.py` counts the values that move
between arrays, `search.py` anneals, `solver.py` is exact for few arrays, `bounds.py` says what no placement can
undercut.
"""
