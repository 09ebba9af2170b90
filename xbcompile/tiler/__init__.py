"""The tiler: cut matrices into tiles, pack tiles into images, place images on arrays and time their steps."""

from xbcompile.tiler.cuts.blocks import MatrixShape
from xbcompile.tiler.layout import Layout, plan_layout
from xbcompile.tiler.schedule.make_schedule import make_schedule

__all__ = ["Layout", "MatrixShape", "make_schedule", "plan_layout"]
