"""Networks on arrays of two-state devices that spread: Fig. 2 of Liu et al. (SOT-MRAM).

`networks.py` (read it first) lists the networks and rows of the table; `figures.py` has the figures and numbers.
"""
