"""Planning: how a network maps onto arrays, from shapes alone, with bounds and reasons.

`plan.py` (read it first) is the way in, `mapper.py` tries layouts and keeps the best schedule, `bounds.py` says what no
mapping can undercut, `requirements.py` why a network does not fit and what would help.
"""
