"""The tiler: matrices onto arrays, from shapes alone. It never sees a resistance.

By stage: `cuts/` matrices into tiles, `pack/` tiles into weight images, `schedule/` images onto arrays in time,
`reuse/` fewer cells written, `floorplan/` arrays onto sites. `layout.py` (read it first) cuts and packs;
`schedule/make_schedule.py` does the rest. `shapes.py` has the sizes that go in, `effort.py` how long searches take,
`scramble.py` the columns' seeded order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbcompile.names import public_names

if TYPE_CHECKING:
    from xbcompile.tiler.layout import Layout, plan_layout
    from xbcompile.tiler.schedule.make_schedule import make_schedule
    from xbcompile.tiler.shapes import MatrixShape

_WHERE = {
    "Layout": "xbcompile.tiler.layout",
    "MatrixShape": "xbcompile.tiler.shapes",
    "make_schedule": "xbcompile.tiler.schedule.make_schedule",
    "plan_layout": "xbcompile.tiler.layout",
}

__all__ = ["Layout", "MatrixShape", "make_schedule", "plan_layout"]

__getattr__ = public_names(__name__, _WHERE)
