"""A program with what can be asked of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xbcompile.data.datasets import load_data
from xbcompile.errors import ProgramError
from xbcompile.files import write_atomically
from xbcompile.program import program as inert

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xbcompile.api.running import Run
    from xbcompile.report.facts import Facts


class Program(inert.Program):
    """A compiled program: which cells to write, what to drive, how to recombine.

    `compile` and `load_program` give it. What its methods give is plain data that shows itself as a table, on a terminal and in
    a notebook.
    """

    @classmethod
    def of(cls, program: inert.Program) -> Self:
        """The same program with these methods.

        Args:
            program: a program.
        """
        found: Self = object.__new__(cls)
        found.__dict__.update(program.__dict__)
        return found

    def __eq__(self, other: object) -> bool:
        """Whether the content is the same, whatever methods there are."""
        if not isinstance(other, inert.Program):
            return NotImplemented
        plain = []
        for each in (self, other):
            plain.append(object.__new__(inert.Program))
            plain[-1].__dict__.update(each.__dict__)
        return bool(inert.Program.__eq__(*plain))

    __hash__ = None  # type: ignore[assignment]  # as of all values that hold arrays

    def summary(self) -> Facts:
        """Layers, mapping with bounds, energy and time, what stays digital; the keys of `xbcompile inspect --json`."""
        from xbcompile.report.facts import Facts
        from xbcompile.report.summary import summarize
        from xbcompile.report.tables import print_summary

        return Facts(summarize(self), print_summary)

    def cost(self) -> Facts:
        """Reads, writes, energy (joules) and time (seconds), of each layer and in all, without a run.

        Returns:
            `program`, `layers` and `totals`, with the keys that these have in `xbcompile inspect --json`.
        """
        from xbcompile.report.cost import cost_facts, print_cost
        from xbcompile.report.facts import Facts

        return Facts(cost_facts(self), print_cost)

    def where(self, weight: str | None = None, *index: int, cell: Sequence[int] | str | None = None) -> Facts:
        """Where a weight sits and what its cell is written to, or which weights a cell holds.

        `program.where("fc1[3,7]")`, `program.where("fc1", 3, 7)`, `program.where(cell=(0, 12, 63))`.

        Args:
            weight: the weight, as `LAYER[INPUT,OUTPUT]`, or `LAYER[OUTPUT,CHANNEL,Y,X]` of a convolution as ONNX counts; or the
                name of its layer.
            index: the numbers, where `weight` is the name of a layer alone.
            cell: array, physical row and physical column.

        Returns:
            `weights`, a list with the keys of `xbcompile where --json`.

        Raises:
            ProgramError: no such weight or cell, or both or none are asked for.
        """
        from xbcompile.export import places
        from xbcompile.report.facts import Facts
        from xbcompile.report.places import print_place

        if (weight is None) == (cell is None):
            raise ProgramError("give either a weight, as in where('fc1[3,7]'), or cell=(ARRAY, ROW, COLUMN)")
        if weight is not None:
            layer, numbers = (weight, index) if index else places.parse_place(weight)
            found = [places.weight_place(self, layer, _whole(numbers))]
        else:
            text = cell if isinstance(cell, str) else ",".join(map(str, cell or ()))
            found = places.cell_content(self, *places.parse_cell(text))
        return Facts({"weights": found}, print_place)

    def plot(self) -> Figure:
        """Weight images, use of cells, energy and time by layer, as `xbcompile inspect --plot` draws them.

        Returns:
            a figure of matplotlib, which notebooks show; `figure.savefig("mapping.svg")` writes it.
        """
        from xbcompile.report.plot_style import rendered
        from xbcompile.report.plots import mapping_figure

        figure = mapping_figure(self.summary())
        # Notebooks draw figures of pyplot alone by themselves, which is not loaded here, as it would choose a window system.
        setattr(figure, "_repr_png_", lambda: rendered(figure, ("png",))["png"])  # noqa: B010  # it has no such field
        return figure

    def run(self, data: Any, device: str | None = None, seed: int = 0, **options: Any) -> Run:
        """Run data on simulated chips; see `xbcompile.run`.

        Args:
            data: see `xbcompile.run`.
            device: a device name of the target; None: its default.
            seed: which simulated chip.
            options: further arguments of `xbcompile.run`.
        """
        from xbcompile.api.running import run

        return run(self, data, device, seed, **options)

    def export(self, folder: str | os.PathLike[str], data: Any = None, labels: Any = None) -> list[Path]:
        """Write cells with their physical values, places of weights, schedule and ideal meaning for other tools.

        Args:
            folder: where to write; it is made where it is missing. See docs/howto/export_a_program.md for the files.
            data: samples whose drives are written too, of any kind that `xbcompile.run` takes; None: no drives.
            labels: the name of the labels in the data, which are left out.

        Returns:
            the files.

        Raises:
            ProgramError: a file cannot be written.
            DataError: the data do not fit, or their drives are too many.
        """
        from xbcompile.export.folder import export_program

        feeds = None
        if data is not None:
            feeds = load_data(data, self.network.inputs, self.network.samples, labels=labels).inputs
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise ProgramError(f"folder {os.fsdecode(folder)!r} cannot be made: {error.strerror}") from None
        return export_program(self, folder, feeds)

    def report(
        self, path: str | os.PathLike[str], data: Any = None, device: str | None = None, seed: int = 0, **options: Any
    ) -> Path:
        """Write one HTML page that needs no network: layers, arrays with their cells, schedule, costs; with data a run, too.

        Args:
            path: of the page; what is there is replaced.
            data: samples of a run, of any kind that `xbcompile.run` takes; None: no run.
            device: of the run.
            seed: of the run.
            options: further arguments of `xbcompile.run`.

        Returns:
            the path.

        Raises:
            ProgramError: the page cannot be written.
            DataError: the data do not fit.
        """
        from xbcompile.report.page.page import report_page

        found = None if data is None else self.run(data, device, seed, **options)
        commands = ["xbcompile compile MODEL.onnx --like P.xbar -o AGAIN.xbar", "xbcompile report P.xbar -o PAGE.html"]
        page = report_page(self, commands, None if found is None else dict(found.facts))
        write_atomically(Path(path), page.encode())
        return Path(path)


def _whole(numbers: Sequence[Any]) -> tuple[int, ...]:
    try:
        return tuple(each.__index__() for each in numbers)
    except AttributeError:
        raise ProgramError(f"the numbers of a weight are whole numbers; found {', '.join(map(str, numbers))}") from None


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a program file, and check all of it by the rules that the compiler keeps.

    Whoever made it, nothing but the file is read, and what it says is of the types, ranges and sizes that a run needs; whether it
    is right, `verify` tells.

    Args:
        path: of the program file.

    Raises:
        ProgramError: the file is missing, no program, damaged (one flipped byte is enough), of another format version, or
            it says what no program may.
    """
    return Program.of(inert.load_program(path))
