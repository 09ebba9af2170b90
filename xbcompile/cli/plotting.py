"""The plots of commands: checked before the work, drawn from the result that `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbcompile.cli import streams
from xbcompile.cli.characters import visible
from xbcompile.cli.output import check_ending, check_output
from xbcompile.files import write_atomically

ENDINGS = (".png", ".svg")


def check_plot(path: Path | None, *inputs: str | Path | None) -> None:
    """Raise ProgramError when a plot cannot be written, is of no kind that is, or would replace an input."""
    if path is not None:
        check_ending(path, ENDINGS)
        check_output(path, *inputs)
        streams.keep_clear(path)


def write_plot(path: Path | None, what: str, result: dict[str, Any]) -> None:
    """Draw a result and write it as the file's ending says; no path: nothing.

    Args:
        path: of the file.
        what: mapping, diagnosis or comparison.
        result: keys as `--json` of the command has them.
    """
    if path is None:
        return
    from xbcompile.report import plots
    from xbcompile.report.plot_style import rendered

    figures = {
        "mapping": plots.mapping_figure, "diagnosis": plots.diagnosis_figure, "comparison": plots.comparison_figure,
    }  # fmt: skip
    kind = path.suffix[1:]
    write_atomically(path, rendered(figures[what](visible(result)), (kind,))[kind])
