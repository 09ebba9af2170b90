"""Diagnosis: where a program's error comes from.

`diagnosis.py` (read it first) measures each source of error by switching it off; `ablation.py` is the session in which
sources are switched off on the same chip; `advice.py` says what to try against the largest one, `trial.py` what that gains.
"""
