"""The compile command's work."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xbcompile.api import compile as compile_model
from xbcompile.cli.network_text import network_printer
from xbcompile.cli.output import check_output
from xbcompile.cli.targeting import changed_target
from xbcompile.frontend.dims import parse_dims
from xbcompile.frontend.inputs import parse_inputs
from xbcompile.frontend.sample_candidates import parse_axes
from xbcompile.options import CompileOptions
from xbcompile.program.program import Program, load_program

DEFAULT_TARGET = "mram64"


def given_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as Python takes them: those left out are None on the command line.

    Raises:
        ModelError: a `--dim`, `--batch-axis` or `--input` that cannot be read.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if "dims" in options:
        options["dims"] = parse_dims(options["dims"])
    if "batch_axis" in options:
        options["batch_axis"] = parse_axes(options["batch_axis"])
    if "fixed_inputs" in options:
        options["fixed_inputs"] = parse_inputs(options["fixed_inputs"])
    return options


def next_commands(output: Path, calibration: str | None) -> list[str]:
    """What to do with a program that was just written, as commands that run as they stand where there is named data."""
    name = str(output)
    path, page = (
        shlex.quote(f"./{each}" if each.startswith("-") else each)
        for each in (name, f"{os.path.splitext(name)[0]}.html")
    )
    name_of_set, colon, _ = (calibration or "").partition(":train")
    data = f"{name_of_set}:test" if colon else "DATA.npz"
    return [f"xbcompile run {path} --data {data}", f"xbcompile report {path} -o {page}", f"xbcompile inspect {path}"]


def compile_file(
    model: Path,
    output: Path,
    like: Path | None,
    target: str | None,
    settings: list[str] | None,
    calibration: str | None,
    given: Mapping[str, Any],
    print_after: str | None,
    warn: Callable[[str], None],
    progress: Callable[[str, float], None],
) -> Program:
    """Compile a model to a program file.

    Args:
        model: path of the model.
        output: path of the program.
        like: a program whose target and options are taken where none are given.
        target: name or path of the target.
        settings: `NAME=VALUE` of the target's quantities.
        calibration: see `xbcompile.compile`.
        given: options as the command line has them, None where left out.
        print_after: pass after which the network is printed.
        warn: called with each warning.
        progress: see `xbcompile.compile`.
    """
    check_output(output, model, calibration, target, like)
    before = None if like is None else load_program(like)
    chosen = changed_target(
        before.target if before is not None and target is None else target or DEFAULT_TARGET, settings
    )
    changes = given_options(given)
    options = CompileOptions() if before is None else before.options
    printer = network_printer(print_after, changes.get("passes", options.passes), chosen)
    program = compile_model(
        model,
        chosen,
        calibration=calibration,
        options=options,
        after_pass=printer,
        warn=warn,
        progress=progress,
        **changes,
    )
    program.save(output)
    return program
