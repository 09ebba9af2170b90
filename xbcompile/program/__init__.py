"""The program: the inert, deterministic result of compiling, and its file.

`program.py` (read it first) is the value; `network_file.py` describes its network, `network_reader.py` rebuilds it, `archive.py`
is the sealed container. Files are anyone's: `manifest.py`, `members.py`, `stored_graph.py`, `stored_tables.py` and
`schedule_tables.py` say what they may hold.
"""
