"""What passes share that move, copy or join rows and columns of layers.

`rewiring.py` (read it first) puts digital segments before and behind a layer; `row_order.py` says which input sits on
which row.
"""
