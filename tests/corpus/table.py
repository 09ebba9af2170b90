"""What came of a corpus, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.corpus.judge import KINDS, Verdict

WIDTH = 400  # of what is said of one stage
QUIET = ("right", "refused", "unchecked")  # what is listed on demand alone: there is nothing to mend


def lines_of(verdict: Verdict, everything: bool) -> Iterator[str]:
    """A line for each stage with something to mend; with everything, for each that is not right, or one for the file."""
    told = [stage for stage in verdict.stages if stage.kind not in (("right",) if everything else QUIET)]
    for stage in told:
        yield f"{verdict.name}: {stage.name} {stage.kind}: {' '.join(stage.text.split())[:WIDTH]}".rstrip(": ")
    if everything and not told:
        errors = [f"{stage.name} errs by {stage.error:.1%}" for stage in verdict.stages if stage.error is not None]
        seconds = sum(stage.seconds for stage in verdict.stages)
        yield ", ".join([f"{verdict.name}: right", f"{_share(verdict)} of MACs on arrays", *errors, f"{seconds:.1f} s"])


def table(verdicts: Sequence[Verdict]) -> str:
    """Files by folder and by what the exact target gave, then all files by stage."""
    folders = sorted({_folder(verdict) for verdict in verdicts})
    rows = [(folder, [v for v in verdicts if _folder(v) == folder]) for folder in folders]
    rows += [("all", list(verdicts))] if len(rows) > 1 else []
    head = ["folder", "files", *KINDS, "MACs on arrays"]
    body = [[name, str(len(of)), *_counts(v.kind for v in of), _share(*of)] for name, of in rows]
    names = list(dict.fromkeys(stage.name for verdict in verdicts for stage in verdict.stages))
    stages = [[s for v in verdicts for s in v.stages if s.name == name] for name in names]
    by_stage = [[name, str(len(of)), *_counts(s.kind for s in of), ""] for name, of in zip(names, stages, strict=True)]
    return f"{_aligned([head, *body])}\n\n{_aligned([['stage', *head[1:-1], ''], *by_stage])}"


def to_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Plain data: every file's stages, and how many files each kind has."""
    return {
        "files": [verdict.to_json() for verdict in verdicts],
        "totals": {kind: sum(verdict.kind == kind for verdict in verdicts) for kind in KINDS},
    }


def _folder(verdict: Verdict) -> str:
    return verdict.name.rpartition("/")[0].partition("/")[0] or "."


def _counts(kinds: Iterator[str]) -> list[str]:
    counted = Counter(kinds)
    return [str(counted[kind] or "") for kind in KINDS]


def _share(*verdicts: Verdict) -> str:
    """The mean share of the files that have MACs: a sum would be that of the largest one."""
    shares = [(v.macs_on_arrays or 0) / v.macs for v in verdicts if v.macs]
    return f"{sum(shares) / len(shares):.0%}" if shares else ""


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if at else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
