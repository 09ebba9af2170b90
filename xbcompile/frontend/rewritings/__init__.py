"""The rewritings of single operators, one file per family."""

from __future__ import annotations

from xbcompile.frontend.rewrite import Rewritings

REWRITINGS = Rewritings({})
