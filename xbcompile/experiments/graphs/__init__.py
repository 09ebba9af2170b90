"""Probabilistic graphs on spin-orbit crossbars: Fig. 4 of Liu et al., and graphs of many nodes on tiled arrays.

`circuits.py` (read it first) says which crossbar answers a question to a graph, and what the right answer is; `sampling.py`
samples it on simulated chips; `tiled.py` does the same for graphs that need many arrays; `figures.py` has figures and numbers.
"""
