"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbcompile import __version__
from xbcompile.cli import arguments, completing, plotting, streams, terminal
from xbcompile.cli.help import App, Group
from xbcompile.cli.progress import progress

app = App(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # with it, :train: in a help text becomes a picture of a train
    help="Compile ONNX networks to tiled analogue crossbar arrays and execute them with device errors.",
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        terminal.show_line(__version__)
        raise typer.Exit


@app.command("compile")
def compile_command(  # each option is a parameter
    context: typer.Context,
    model: arguments.Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="P.xbar", help="Program file to write.")],
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="P.xbar",
            autocompletion=completing.programs,
            help="Take target and options of this program, but for those given here.",
        ),
    ] = None,
    target: arguments.Target = None,
    set_quantity: arguments.Settings = None,
    passes: arguments.Pipeline = None,
    calibration: arguments.Calibration = None,
    arrays: arguments.Arrays = None,
    batch: arguments.Batch = None,
    cuts: arguments.Cuts = None,
    packing: arguments.Packing = None,
    objective: arguments.Objective = None,
    rewrite: Annotated[
        str | None,
        typer.Option(
            help="changed: write only rows that change; matched: choose orders and columns for that.",
            show_default="all",
        ),
    ] = None,
    floorplan: Annotated[
        str | None, typer.Option(metavar="RxC[xCHIPS]", help="Place the arrays on sites of a grid, for little traffic.")
    ] = None,
    scramble: Annotated[
        bool | None,
        typer.Option("--scramble/--no-scramble", help="Permute the columns of every image.", show_default="scramble"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the column permutations.", show_default="0")] = None,
    effort: arguments.Effort = None,
    digital: arguments.Digital = None,
    dims: arguments.Dims = None,
    batch_axis: arguments.BatchAxis = None,
    keep_inputs: arguments.KeptInputs = None,
    fixed_inputs: arguments.FixedInputs = None,
    embed_model: Annotated[
        bool | None,
        typer.Option(
            "--embed-model/--no-embed-model", help="Keep the model in the program.", show_default="embed-model"
        ),
    ] = None,
    print_after: Annotated[str | None, typer.Option(help="Print the network after this pass, or after 'all'.")] = None,
    as_json: arguments.Json = False,
) -> None:
    """Compile a model to a program file; the program is verified before it is written."""
    from xbcompile.cli.compiling import compile_file, next_commands
    from xbcompile.files import regular_size
    from xbcompile.options import CompileOptions
    from xbcompile.report.summary import summarize
    from xbcompile.report.tables import print_summary

    given = arguments.given(context, CompileOptions)
    streams.keep_clear(output)
    with progress(f"compiling {model}", not as_json) as tell:
        program = compile_file(
            model,
            output,
            like,
            target,
            set_quantity,
            calibration,
            given,
            print_after,
            terminal.warn,
            lambda what, done: tell(f"compiling {model}: {what}", done),
        )
    summary = summarize(program)
    if as_json:
        terminal.print_json(summary)
        return
    terminal.show(print_summary, summary)
    size = regular_size(output)
    written = "" if size is None else f"{size:,} bytes, "
    terminal.show_line(f"verified and written: {output} ({written}sha256 {program.digest[:16]})")
    if size is not None:
        terminal.show_line("what next:")
        for line in next_commands(output, calibration):
            terminal.show_command(f"  {line}")


@app.command("plan")
def plan_command(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SHAPES.json|MODEL.onnx|P.xbar",
            help="Shapes (FILE.json:NAME), a model, or a compiled program.",
            autocompletion=completing.models,
        ),
    ],
    target: arguments.Target = None,
    set_quantity: arguments.Settings = None,
    array: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLUMNS", help="Size of an array, in place of the target's.")
    ] = None,
    arrays: arguments.Arrays = None,
    batch: arguments.Batch = None,
    cuts: arguments.Cuts = None,
    packing: arguments.Packing = None,
    objective: arguments.Objective = None,
    effort: arguments.Effort = None,
    slices: Annotated[int | None, typer.Option(help="Reads per input vector, in place of the target's coding.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT", help="stationary, images<=25, latency_s<=1e-3, ...; repeatable. Exit status 1 if not met."
        ),
    ] = None,
    digital: arguments.Digital = None,
    dims: arguments.Dims = None,
    batch_axis: arguments.BatchAxis = None,
    keep_inputs: arguments.KeptInputs = None,
    fixed_inputs: arguments.FixedInputs = None,
    plot: arguments.Plot = None,
    as_json: arguments.Json = False,
) -> None:
    """Map layer shapes alone, without weights: images, writes, reads, time and energy with bounds, and why it does not fit."""
    from xbcompile.cli.planning import plan_file
    from xbcompile.options import PlanOptions
    from xbcompile.report.plan import print_plan

    plotting.check_plot(plot, source)
    with progress(f"planning {source}", not as_json) as tell:
        summary = plan_file(
            source,
            target,
            set_quantity,
            require,
            arguments.given(context, PlanOptions),
            progress=lambda what: tell(f"planning {source}: {what}", None),
        )
    plotting.write_plot(plot, "mapping", summary)
    terminal.give(print_plan, summary, as_json)
    if any(each["verdict"] != "met" for each in summary["requirements"]):
        raise typer.Exit(1)


@app.command("explain")
def explain_command(
    model: arguments.Model,
    digital: arguments.Digital = None,
    dims: arguments.Dims = None,
    batch_axis: arguments.BatchAxis = None,
    keep_inputs: arguments.KeptInputs = None,
    fixed_inputs: arguments.FixedInputs = None,
    as_json: arguments.Json = False,
) -> None:
    """Show what becomes of each node of a model: matrices on arrays, or digital and why. No target is needed."""
    from xbcompile.cli.explaining import explain_model
    from xbcompile.report.explanation import print_explanation

    result = explain_model(model, digital, dims, batch_axis, keep_inputs, fixed_inputs)
    terminal.give(print_explanation, result, as_json)


@app.command("inspect")
def inspect_command(
    program: arguments.Program,
    schedule: Annotated[bool, typer.Option("--schedule", help="Print every step.")] = False,
    image: Annotated[int | None, typer.Option(help="Print the cells of this weight image.")] = None,
    plot: arguments.Plot = None,
    as_json: arguments.Json = False,
) -> None:
    """Show what a program is: layers, tiles, images, weight updates, reads, bounds, energy and time."""
    from xbcompile.errors import ProgramError
    from xbcompile.program.program import load_program
    from xbcompile.report import summary, tables

    plotting.check_plot(plot, program)
    loaded = load_program(program)
    if image is not None and not 0 <= image < loaded.schedule.images:
        allowed = f"allowed: 0 to {loaded.schedule.images - 1}" if loaded.schedule.images else "the program has none"
        raise ProgramError(f"image {image} does not exist; {allowed}")
    result = summary.summarize(loaded)
    plotting.write_plot(plot, "mapping", result)
    if schedule:
        result["schedule"] = summary.schedule_rows(loaded)
    if image is not None:
        result["image"] = summary.image_contents(loaded, image)
    if as_json:
        terminal.print_json(result)
        return
    terminal.show(tables.print_summary, result)
    if schedule:
        terminal.show(tables.print_schedule, result["schedule"])
    if image is not None:
        terminal.show(tables.print_image, result["image"])


@app.command("run")
def run_command(
    program: arguments.Program,
    data: Annotated[str, typer.Option(help="mnist:test[:N], another set, .npz, .npy, .csv, or a folder of images.")],
    device: arguments.Device = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first chip.")] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="Chips (seeds) to run on.")] = 1,
    fit: Annotated[
        Path | None,
        typer.Option(
            "--fit",
            metavar="CHIP.fit",
            help="Corrections of this chip, from 'xbcompile commission'.",
            autocompletion=completing.corrections,
        ),
    ] = None,
    state: arguments.States = None,
    threshold: arguments.Threshold = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.npz", help="Write the outputs.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Chips at a time, each in a process of its own.")] = 1,
    threads: arguments.Threads = None,
    memory: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="What simulating may take in each process.", show_default="512"),
    ] = None,
    require: arguments.Required = None,
    labels: arguments.Labels = None,
    as_json: arguments.Json = False,
) -> None:
    """Execute a program with device errors: outputs or accuracy, counters, cost."""
    from xbcompile.cli.output import check_output
    from xbcompile.cli.running import run_program
    from xbcompile.report.tables import print_run

    if output is not None:
        check_output(output, program, data, fit)
        streams.keep_clear(output)
    result = run_program(
        program,
        data,
        device,
        seed,
        repeat,
        output,
        fit,
        state,
        threshold,
        threads,
        jobs,
        memory,
        require,
        labels=labels,
        show_progress=not as_json,
    )
    for warning in result["warnings"]:
        terminal.warn(warning)
    terminal.give(print_run, result, as_json)
    if not all(each["met"] for each in result["requirements"]):
        raise typer.Exit(1)


@app.command("commission")
def commission_command(
    program: arguments.Program,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="CHIP.fit", help="Where to write the corrections.")],
    device: arguments.Device = None,
    seed: Annotated[int, typer.Option(min=0, help="Which chip.")] = 0,
    threads: arguments.Threads = None,
    as_json: arguments.Json = False,
) -> None:
    """Fit a program's device passes on one chip: a file of corrections for 'run --fit', and what fitting took."""
    from xbcompile.cli.commissioning import commission_program
    from xbcompile.cli.output import check_output
    from xbcompile.report.tables import print_commissioning

    check_output(output, program)
    streams.keep_clear(output)
    result = commission_program(program, output, device, seed, threads, show_progress=not as_json)
    terminal.give(print_commissioning, result, as_json)


@app.command("diagnose")
def diagnose_command(
    program: arguments.Program,
    data: Annotated[str, typer.Option(help="mnist:train:500, another set, .npz, .npy, .csv, or a folder of images.")],
    device: arguments.Device = None,
    seed: Annotated[int, typer.Option(min=0, help="Which chip.")] = 0,
    threshold: arguments.Threshold = None,
    labels: arguments.Labels = None,
    threads: arguments.Threads = None,
    plot: arguments.Plot = None,
    as_json: arguments.Json = False,
) -> None:
    """Measure what each source of error costs, by switching it off: per layer and end to end."""
    from xbcompile.cli.diagnosing import diagnose_program
    from xbcompile.report.diagnosis import print_diagnosis

    plotting.check_plot(plot, program, data)
    result = diagnose_program(
        program, data, device, seed, threshold, threads, labels_name=labels, show_progress=not as_json
    )
    plotting.write_plot(plot, "diagnosis", result)
    terminal.give(print_diagnosis, result, as_json)


@app.command("verify")
def verify_command(
    program: arguments.Program,
    model: Annotated[Path | None, typer.Option(help="Also compare with this model's interface and outputs.")] = None,
    as_json: arguments.Json = False,
) -> None:
    """Check a program on its own: schedule tables, codes, equivalence with its host graph. Exit status 1 on a finding."""
    from xbcompile.cli.verifying import verify_program

    result = verify_program(program, model)
    if as_json:
        terminal.print_json(result)
    else:
        for finding in result["findings"]:
            terminal.show_line(f"finding: {finding}")
        for note in result["notes"]:
            terminal.show_line(f"note: {note}")
        terminal.show_line("wrong" if result["findings"] else "right: schedule tables, codes and equivalence")
    if result["findings"]:
        raise typer.Exit(1)


@app.command("targets")
def targets_command(
    name: Annotated[
        str | None, typer.Argument(help="Show one target's numbers.", autocompletion=completing.targets)
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """List the targets, or one target's numbers with unit and source."""
    from xbcompile.cli.target_list import print_target, print_targets, target_facts, target_json
    from xbcompile.targets import load_target, target_names

    targets = [load_target(name)] if name else [load_target(each) for each in target_names()]
    if as_json:
        terminal.print_json({"targets": [target_json(target) for target in targets]})
    elif name:
        terminal.show(print_target, target_facts(targets[0]))
    else:
        terminal.show(print_targets, [target_facts(target) for target in targets])


@app.command("passes")
def passes_command(as_json: arguments.Json = False) -> None:
    """List the passes with their options."""
    from xbcompile.cli.pass_list import describe_passes, print_passes

    described = describe_passes()
    if as_json:
        terminal.print_json({"passes": described})
    else:
        terminal.show(print_passes, described)
