"""What `--help` shows: commands and options in groups, and examples that run as they stand, one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_COMMANDS = {
    "Compile and run": ("demo", "compile", "run", "commission", "diagnose"),
    "Look into programs": ("inspect", "report", "compare", "where", "verify", "export"),
    "Before compiling": ("explain", "plan", "targets", "passes", "glossary", "sensitivity", "characterize"),
    "Published systems": ("reproduce", "study"),
}
_OPTIONS = {
    "Target": ("target", "set_quantity", "like", "passes", "sigma_nl", "sigma_perp", "states", "weights"),
    "Mapping": (
        *("array", "arrays", "batch", "cuts", "packing", "objective", "rewrite", "floorplan", "scramble", "effort"),
        *("slices", "cell"),
    ),
    "Model": ("digital", "dims", "batch_axis", "keep_inputs", "fixed_inputs", "embed_model", "model", "models"),
    "Data": ("data", "labels", "calibration", "state", "threshold"),
    "Chip": ("device", "seed", "repeat", "fit", "seeds"),
    "Speed": ("jobs", "threads", "memory", "quick", "vectors", "matrices"),
    "Check": ("require",),
    "Output": (
        *("output", "trace", "batches", "onnx", "overlay", "figures", "print_after", "schedule", "image", "plot"),
        *("as_json", "help"),
    ),
}
_OTHER = "Options"
_WHOLE = 1000  # characters: more than any first sentence has
_ELSEWHERE = {("compile", "seed"): "Mapping"}  # options that are of another group in one command

# In this order, they run in an empty folder; `reproduce` and `study` take minutes.
EXAMPLES = {
    "demo": ("xbcompile demo", "xbcompile demo -o letters"),
    "explain": ("xbcompile explain letters_mlp", "xbcompile explain mnist_lenet5 --digital conv1"),
    "plan": ("xbcompile plan mnist_mlp", "xbcompile plan mnist_mlp --target sot --require stationary --arrays 0"),
    "compile": (
        "xbcompile compile letters_mlp -o letters.xbar --calibration letters:train",
        "xbcompile compile letters_mlp -o sot.xbar --target sot --arrays 0",
    ),
    "run": (
        "xbcompile run letters.xbar --data letters:test --repeat 3",
        "xbcompile run letters.xbar --data letters:test --require 'accuracy>=0.5'",
    ),
    "commission": (
        "xbcompile commission letters.xbar -o chip0.fit",
        "xbcompile commission letters.xbar -o chip7.fit --seed 7",
    ),
    "diagnose": (
        "xbcompile diagnose letters.xbar --data letters:train",
        "xbcompile diagnose letters.xbar --data letters:train --json",
    ),
    "inspect": ("xbcompile inspect letters.xbar", "xbcompile inspect letters.xbar --schedule --image 0"),
    "report": (
        "xbcompile report letters.xbar -o letters.html",
        "xbcompile report letters.xbar -o letters.html --data letters:test:100",
    ),
    "compare": (
        "xbcompile compare letters.xbar sot.xbar",
        "xbcompile compare letters.xbar sot.xbar --data letters:test:100",
    ),
    "where": ("xbcompile where letters.xbar 'fc1[3,7]'", "xbcompile where letters.xbar --cell 0,3,5"),
    "verify": ("xbcompile verify letters.xbar", "xbcompile verify letters.xbar --model letters_mlp"),
    "export": (
        "xbcompile export letters.xbar -o letters_files",
        "xbcompile export letters.xbar --trace trace.json --onnx letters.onnx",
    ),
    "targets": ("xbcompile targets", "xbcompile targets mram64"),
    "passes": ("xbcompile passes", "xbcompile passes --json"),
    "glossary": ("xbcompile glossary", "xbcompile glossary recycled"),
    "sensitivity": (
        "xbcompile sensitivity letters_mlp --data letters:test:100 --target memristor20 --repeat 1",
        "xbcompile sensitivity letters_mlp 'line_*' --data letters:test --target memristor20 -o tornado.png",
    ),
    "characterize": ("xbcompile characterize mram64 --vectors 20", "xbcompile characterize mram64 --seed 3 --json"),
    "reproduce": ("xbcompile reproduce --quick 'memristor20-*'", "xbcompile reproduce --quick --figures figures"),
    "study": ("xbcompile study --quick", "xbcompile study m2tj4 --states 2,4,8 -o plots"),
}


class Command(TyperCommand):
    """A command whose help has options in groups, and examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", _OTHER, *_OPTIONS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                group = _ELSEWHERE.get((self.name or "", parameter.name or ""), _group(parameter.name, _OPTIONS))
                groups["Arguments" if is_argument else group].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name if name in ("Arguments", _OTHER) else f"{name} options"):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, each on a line of its own, however long."""
        examples = EXAMPLES.get(self.name or "", ())
        if examples:
            formatter.write("\nExamples:\n" + "".join(f"  {each}\n" for each in examples))


class Group(TyperGroup):
    """The commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each group with a line for each of its commands."""
        names = self.list_commands(ctx)
        for group in (*_COMMANDS, _OTHER):
            chosen = sorted((name for name in names if _group(name, _COMMANDS) == group), key=_place)
            rows = [(name, self.commands[name].get_short_help_str(_WHOLE)) for name in chosen]
            if rows:
                with formatter.section("More commands" if group == _OTHER else group):
                    formatter.write_dl(rows, col_max=max(map(len, names)))


class App(typer.Typer):
    """An application of such commands."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        """See `Typer.command`."""
        return super().command(name, cls=Command, **options)


def _group(name: str | None, groups: dict[str, tuple[str, ...]]) -> str:
    return next((group for group, members in groups.items() if name in members), _OTHER)


def _place(name: str) -> int:
    """A command's place in its group; those of no group are at the end, in order of their declaration."""
    places: Iterable[tuple[int, str]] = enumerate(each for members in _COMMANDS.values() for each in members)
    return next((number for number, each in places if each == name), len(EXAMPLES))
