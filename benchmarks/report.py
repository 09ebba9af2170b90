"""Tables of what was measured, for the terminal and for docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.rows import SIDE_NAMES

Cells = list[list[str]]
Measured = dict[str, Any]

PEERS = ("lightning", "crosssim", "onnxruntime", "badcrossbar")
BEGIN, END = "<!-- make bench -->", "<!-- end -->"
MIB = 1 << 20


def tables(results: Measured, before: Measured | None = None) -> dict[str, Cells]:
    """All tables by title; the first row of each is its head. Rows that were not measured are not there.

    Args:
        results: what `benchmarks.bench` writes.
        before: the same of an earlier run, to compare with.
    """
    rows, limits = results["rows"], results["machine"]["limits"]
    earlier = {row["row"]: row for row in before["rows"]} if before else {}
    found = {
        "Limits of the machine, one thread": limit_cells(limits),
        "Speed": with_before(
            [speed_cells(row, limits) for row in rows if row["unit"].endswith("/s")], rows, earlier, SPEED
        ),
        "Seconds": with_before(
            [second_cells(row, base_seconds(rows)) for row in rows if row["unit"] == "s"], rows, earlier, SECONDS
        ),
        "Memory": with_before([memory_cells(row) for row in rows if row["unit"] == "MiB"], rows, earlier, MEMORY),
    }
    return {title: cells for title, cells in found.items() if len(cells) > 1}


SPEED = [
    "row",
    "work",
    "unit",
    "xbcompile, 1 / 2 threads",
    "2 : 1",
    "of the limit",
    *(SIDE_NAMES[each] for each in PEERS),
]
SECONDS = ["row", "what", "s", "of processors, s", "compared with"]
MEMORY = ["row", "what", "the run, MiB", "compiling before, MiB", "its inputs, MiB"]


def with_before(body: Cells, rows: list[Measured], earlier: dict[str, Measured], head: list[str]) -> Cells:
    """A table; with an earlier run, a column of how many times better ours is than then."""
    if not earlier:
        return [head, *body]
    by_name = {row["row"]: row for row in rows}
    return [[*head, "before"], *([*cells, improvement(by_name[cells[0]], earlier.get(cells[0]))] for cells in body)]


def improvement(row: Measured, before: Measured | None) -> str:
    """Ratio of an earlier figure to this one, or the other way round where more is better."""
    now, then = ({} if each is None else own_side(each).get("threads", {}) for each in (row, before))
    both = now.keys() & then.keys()
    if not both:
        return "-"
    now, then = (each[max(both, key=int)] for each in (now, then))
    figure = "peak_bytes" if row["unit"] == "MiB" else "seconds"
    samples = 1.0 if figure == "peak_bytes" else now["rate"] * now["seconds"] / (then["rate"] * then["seconds"])
    return f"{samples * then[figure] / now[figure]:.3g}x"


def own_side(row: Measured) -> Measured:
    """The first side is ours."""
    side: Measured = next(iter(row["sides"].values()))
    return side


def best_of(side: Measured) -> Measured | None:
    """What was measured on the most threads; None where nothing was."""
    threads = side.get("threads", {})
    found: Measured | None = threads[max(threads, key=int)] if threads else None
    return found


def absence(side: Measured | None) -> str:
    """Why a side has no figure."""
    if side is None:
        return "-"
    return "not installed" if "missing" in side else "failed"


def rates(side: Measured) -> str:
    """One figure per number of threads."""
    return " / ".join(rounded(each["rate"]) for each in side["threads"].values())


def rounded(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def speed_cells(row: Measured, limits: dict[str, float]) -> list[str]:
    """One row of simulators."""
    own = own_side(row)
    cells = [row["row"], row["title"], row["unit"]]
    best = best_of(own)
    if best is None:
        return [*cells, absence(own), "-", "-", *("-" for _ in PEERS)]
    cells += [rates(own), two_to_one(own), share_of_limit(own, limits)]
    for peer in PEERS:
        side = row["sides"].get(peer)
        if side is None or not side.get("threads"):
            cells.append(absence(side))
        else:
            cells.append(f"{rates(side)} ({best['rate'] / fastest(side):.2g}x)")
    return cells


def fastest(side: Measured) -> float:
    """The best rate of all settings: where two threads slow a peer down, it has one."""
    return float(max(each["rate"] for each in side["threads"].values()))


def two_to_one(side: Measured) -> str:
    """How many times faster two threads are than one."""
    threads = side["threads"]
    return f"{threads['2']['rate'] / threads['1']['rate']:.2f}" if {"1", "2"} <= set(threads) else "-"


def share_of_limit(side: Measured, limits: dict[str, float]) -> str:
    """The time that products with tiles and normals alone take of the time on one thread."""
    facts = side["facts"]
    if "products" not in facts or "1" not in side["threads"]:
        return "-"
    least_s = 2 * facts["products"] / limits["sgemm_flops"]
    least_s += facts["readings"] / limits["normals"] if facts["draws"] else 0.0
    return f"{100 * least_s * side['threads']['1']['rate']:.2g} %"


def base_seconds(rows: list[Measured]) -> float:
    """What Python takes to start; 0 where it was not measured."""
    base = next((best_of(own_side(row)) for row in rows if row["row"] == "python"), None)
    return base["seconds"] if base else 0.0


def second_cells(row: Measured, python_s: float) -> list[str]:
    """One row whose time counts."""
    own = best_of(own_side(row))
    cells = [row["row"], row["title"]]
    if own is None:
        return [*cells, absence(own_side(row)), "-", "-"]
    others = [
        f"{SIDE_NAMES[name]} {rounded(found['seconds'])} ({found['seconds'] / own['seconds']:.2g}x)"
        for name, side in list(row["sides"].items())[1:]
        if (found := best_of(side))
    ]
    if row["row"].startswith("start-") and python_s:
        others.append(f"beyond Python's own {rounded(own['seconds'] - python_s)}")
    return [*cells, rounded(own["seconds"]), rounded(own["processor_seconds"]), ", ".join(others) or "-"]


def memory_cells(row: Measured) -> list[str]:
    """One row whose memory counts."""
    side = own_side(row)
    found = best_of(side)
    if found is None:
        return [row["row"], row["title"], absence(side), "-", "-"]
    sizes = (found["peak_bytes"], side["setup_peak_bytes"], side["facts"]["input_bytes"])
    return [row["row"], row["title"], *(f"{size / MIB:,.0f}" for size in sizes)]


def limit_cells(limits: dict[str, float]) -> Cells:
    """What bounds every simulation."""
    return [
        ["what", "per second"],
        ["single-precision product with a tile of 64x64", f"{limits['sgemm_flops'] / 1e9:.0f} GFLOP"],
        ["the same in double precision", f"{limits['dgemm_flops'] / 1e9:.0f} GFLOP"],
        ["normal errors of readings drawn", f"{limits['normals'] / 1e6:.0f} million"],
        ["memory copied", f"{limits['copied_bytes'] / 1e9:.1f} GB"],
    ]


def markdown(cells: Cells) -> str:
    """A table of a page."""
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, f"|{' --- |' * len(cells[0])}", *body])


def errors_of(results: Measured) -> list[str]:
    """Of each row that has any, which errors are on at which side."""
    return [f"{row['row']}: {row['errors']}" for row in results["rows"] if row["errors"]]


def write_docs(page: Path, results: Measured, before: Measured | None = None) -> None:
    """Put the tables between the two marks of a page.

    Args:
        page: with a line for each mark.
        results: see `tables`.
        before: see `tables`.

    Raises:
        ValueError: the page has no such marks.
    """
    machine = results["machine"]
    said = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [f"{machine['processor']}, {machine['processors']} processors; {said}."]
    parts += [f"**{title}**\n\n{markdown(cells)}" for title, cells in tables(results, before).items()]
    parts.append("\n".join(["Errors that are on:", "", *(f"- {each}" for each in errors_of(results))]))
    write_between(page, BEGIN, "\n\n".join(parts))


def write_between(page: Path, mark: str, text: str) -> None:
    """Put a text between a mark of a page and the next `<!-- end -->`.

    Args:
        page: with a line for each of the two.
        mark: the first of them.
        text: what stands between them.

    Raises:
        ValueError: the page has no such marks.
    """
    found = page.read_text(encoding="utf-8")
    if mark not in found or END not in found.split(mark)[1]:
        raise ValueError(f"{page} has no lines {mark} and {END}")
    start, rest = found.split(mark)
    page.write_text(f"{start}{mark}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
