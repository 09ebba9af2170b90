"""More commands of the application: what the papers measured, and what assumed numbers are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbcompile.cli import arguments, terminal
from xbcompile.cli.app import app as app  # with the commands of this file
from xbcompile.cli.progress import progress


@app.command("characterize")
def characterize_command(
    target: Annotated[str, typer.Argument(help="A target of model resistance_sum.")] = "mram64",
    seed: Annotated[int, typer.Option(min=0, help="Which chip.")] = 0,
    vectors: Annotated[int, typer.Option(min=1, help="Input vectors per dot product.")] = 1000,
    as_json: arguments.Json = False,
) -> None:
    """Measure a simulated array as its paper did: error over all dot products, delays, efficiency."""
    from xbcompile.cli.characterizing import characterize_target, print_characterization

    result = characterize_target(target, seed, vectors)
    terminal.give(print_characterization, result, as_json)


@app.command("study")
def study_command(
    target: Annotated[
        str, typer.Argument(help="A target of model multistate, or path of a .toml description.")
    ] = "m2tj4",
    seeds: Annotated[int, typer.Option(min=1, help="Independent repetitions; spreads are over them.")] = 10,
    states: Annotated[
        str, typer.Option(help="Numbers of states: a list, or a range, of which about 20 are taken.")
    ] = "2:64",
    sigma_nl: Annotated[float, typer.Option(min=0, help="Offsets that all cells share, Ohm.")] = 50.0,
    sigma_perp: Annotated[str, typer.Option(help="Each cell's own offsets, Ohm, a list.")] = "5,30,60",
    matrices: Annotated[int, typer.Option(min=1, help="Random matrices per seed.")] = 50,
    weights: Annotated[str, typer.Option(help="Distribution of their weights: normal or uniform.")] = "normal",
    model: Annotated[Path | None, typer.Option(metavar="M.onnx", help="Also the accuracy of this network.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled samples for --model: mnist:test:1000 or FILE.npz.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Inputs to fit on for --model: mnist:train:1000.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for plots and study.json.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer draws, states and matrix sizes.")] = False,
    threads: arguments.Threads = None,
    as_json: arguments.Json = False,
) -> None:
    """Study the errors of a multistate array as its paper did: quantization, level offsets, the best number of states."""
    from xbcompile.cli.studying import print_study, run_study, study_settings

    settings = study_settings(target, seeds, states, sigma_nl, sigma_perp, matrices, weights, quick)
    with progress("study", not as_json) as tell:
        result = run_study(
            settings,
            output,
            model,
            data,
            calibration,
            threads,
            lambda part: tell(f"study: {part}", None),
            terminal.warn,
        )
    terminal.give(print_study, result, as_json)


@app.command("reproduce")
def reproduce_command(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names or patterns of experiments, measurements, figures; none: all."),
    ] = None,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the networks.", show_default="the package's own")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Chips per experiment.")] = 10,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two chips per experiment, fewer images of large networks, coarse figures.")
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the papers' figures: PNG, SVG and JSON files in DIR.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Experiments at a time; all processors if not given.")] = None,
    threads: arguments.Threads = None,
    as_json: arguments.Json = False,
) -> None:
    """Run the published systems: published accuracies, numbers and figures beside ours. Exit status 1 on a goal missed."""
    from xbcompile.cli.reproducing import reproduce
    from xbcompile.frontend.examples import EXAMPLES
    from xbcompile.report.reproduction import print_reproduction

    result = reproduce(
        models or EXAMPLES, only or [], seeds, jobs, threads, quick=quick, figures=figures, show_progress=not as_json
    )
    terminal.give(print_reproduction, result, as_json)
    if any(row["met"] is False for row in (*result["rows"], *result["measurements"])):
        raise typer.Exit(1)


@app.command("sensitivity")
def sensitivity_command(
    context: typer.Context,
    model: arguments.Model,
    data: Annotated[str, typer.Option(help="Labelled samples: mnist:test:1000, another set, or FILE.npz.")],
    only: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Names or patterns of assumed numbers; none: all.")
    ] = None,
    target: arguments.Target = None,
    set_quantity: arguments.Settings = None,
    passes: arguments.Pipeline = None,
    calibration: arguments.Calibration = None,
    arrays: arguments.Arrays = None,
    digital: arguments.Digital = None,
    dims: arguments.Dims = None,
    batch_axis: arguments.BatchAxis = None,
    fixed_inputs: arguments.FixedInputs = None,
    device: arguments.Device = None,
    repeat: Annotated[int, typer.Option(min=1, help="Chips (seeds) to run on.")] = 3,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write a tornado plot (.png, .svg) or all (.json); repeatable."
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Programs at a time; all processors if not given.")] = None,
    threads: arguments.Threads = None,
    as_json: arguments.Json = False,
) -> None:
    """What a target's assumed numbers are worth: accuracy with each at the low and the high end of its range."""
    from xbcompile.cli.compiling import DEFAULT_TARGET, given_options
    from xbcompile.cli.sensitivity import run_sensitivity
    from xbcompile.cli.targeting import changed_target
    from xbcompile.experiments.sensitivity import Trial
    from xbcompile.options import CompileOptions
    from xbcompile.report.sensitivity import print_sensitivity

    options = given_options(arguments.given(context, CompileOptions))
    trial = Trial(
        model,
        changed_target(target or DEFAULT_TARGET, set_quantity),
        data,
        calibration,
        device,
        repeat,
        options=options,
    )
    result = run_sensitivity(trial, only or [], output or [], jobs, threads, show_progress=not as_json)
    for warning in result["warnings"]:
        terminal.warn(warning)
    terminal.give(print_sensitivity, result, as_json)
