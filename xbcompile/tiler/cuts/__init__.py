"""Cuts: how matrices are divided into tiles that fit an array.

`blocks.py` (read it first) cuts every so many rows and columns: greedy or balanced. `free.py` cuts residual strips
wherever that fills images best, `free_in_order.py` the same for images that follow the order of execution; `fill.py` is
the filling that both use.
"""

CUTS = ("greedy", "balanced", "free")
