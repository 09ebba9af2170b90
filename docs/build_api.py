"""Write the reference of all public names, from their docstrings, to `build/docs/api`; warnings are errors.

Public are the names of `xbcompile.__all__`, and what packages that extend xbcompile build on.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pdoc
import pdoc.render

import xbcompile

CONTRACTS = ("passes.contract", "targets.contract", "targets.parameters", "targets.quantity", "testing", "extensions")
OUTPUT = Path(__file__).parents[1] / "build" / "docs" / "api"


def main() -> None:
    """Make the pages; `index.html` is the first."""
    warnings.simplefilter("error")
    # The constructor of a NamedTuple is made outside of the module whose names its annotations use.
    warnings.filterwarnings(
        "ignore", r"Error parsing type annotation .* for xbcompile\.targets\.contract\.Write\.__init__"
    )
    for name in xbcompile.__all__:  # loaded on first use, which pdoc does not wait for
        vars(xbcompile)[name] = getattr(xbcompile, name)
    pdoc.render.configure(docformat="google", footer_text=f"xbcompile {xbcompile.__version__}")
    shown = [
        "xbcompile",
        *(f"xbcompile.{name}" for name in CONTRACTS),
        "xbcompile.testing.passes",
        "xbcompile.testing.targets",
    ]
    pdoc.pdoc(*shown, output_directory=OUTPUT)
    print(f"written: {OUTPUT / 'index.html'}")


if __name__ == "__main__":
    main()
