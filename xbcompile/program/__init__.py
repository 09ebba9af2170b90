"""The program: the inert, deterministic result of compiling, and its file.

`program.py` (read it first) is the value; `network_file.py` describes its network, `archive.py` is the sealed
container.
"""
