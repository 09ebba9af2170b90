"""Packing: which tiles share a weight image, so that few images are written.

Rectangles into bins, with what the target forbids (`rules.py`). `dense.py` (read it first) takes the best of bands,
first fit and CP-SAT (`solver.py`), next to lower bounds (`bounds.py`). `in_order.py` carries out what `order_search.py`
finds: images that follow the order of execution. `regroup.py` exchanges equal tiles so that an image serves few layers.
"""
