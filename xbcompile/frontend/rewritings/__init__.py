"""The rewritings of single operators, one file per family; `frontend/operators.py` says which operator has which."""
