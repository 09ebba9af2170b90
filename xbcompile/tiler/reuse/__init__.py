"""Reuse of what an array already holds: a weight rewriting that changes few cells.

`reuse_cells.py` (read it first) is what the option `rewrite` asks for. `steps.py` reads from a schedule which images an
array is written with, `image_order.py` puts exchangeable ones in an order, `match_columns.py` assigns their columns to
those of the images before, and `changed_cells.py` counts cells that differ.
"""

REWRITE_MODES = ("all", "changed", "matched")
