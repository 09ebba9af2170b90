"""A few kills of the short commands; `make kills` has many, of all."""

from __future__ import annotations

from tests.soak.kill import COMMANDS, soak


def test_kills(tmp_path) -> None:
    rows, left = soak(tmp_path, 4, commands=[each for each in COMMANDS if each.name in ("compile", "run")])
    assert [row.faults for row in rows] == [[], []]
    assert sum(row.kills for row in rows) == 4
    assert left == []
