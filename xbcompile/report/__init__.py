"""What users see of a program and a run: plain data for --json, tables for the terminal.

`summary.py` (read it first) has the facts of a program as plain data, the other files show facts as tables and plots.
Nothing is compiled or run here.
"""
