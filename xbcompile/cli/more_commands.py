"""More commands of the application: handing a program to other tools, and what words mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbcompile.cli import arguments, completing, terminal
from xbcompile.cli.experiment_commands import app as app  # with the commands of this file


@app.command("export")
def export_command(
    program: arguments.Program,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for cells, schedule, layers, model.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="With -o: also the drives of these samples: mnist:test:10, FILE.npz, FILE.npy.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The schedule as a trace for Chrome or Perfetto.")
    ] = None,
    batches: Annotated[int, typer.Option(min=1, max=1000, help="Batches in the trace.")] = 1,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE.onnx", help="The ideal meaning, with costs as metadata.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Reads of each layer, for Model Explorer.")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Write a program for other tools: cells with physical values, map of weights, schedule, drives, trace, ONNX."""
    from xbcompile.cli.exporting import export_file

    result = export_file(program, output, data, trace, batches, onnx, overlay)
    if as_json:
        terminal.print_json(result)
        return
    for each in result["files"]:
        terminal.show_line(f"written: {each['path']} ({each['bytes']:,} bytes)")


@app.command("where")
def where_command(
    program: arguments.Program,
    weight: Annotated[
        str | None,
        typer.Argument(metavar="LAYER[INPUT,OUTPUT]", help="A weight; of convolutions also [OUTPUT,CHANNEL,Y,X]."),
    ] = None,
    cell: Annotated[
        str | None, typer.Option(metavar="ARRAY,ROW,COLUMN", help="A cell instead: which weights it holds.")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Show where a weight sits and what its cell is written to, or which weights a cell holds."""
    from xbcompile.cli.exporting import find_place
    from xbcompile.report.places import print_place

    result = find_place(program, weight, cell)
    terminal.give(print_place, result, as_json)


@app.command("report")
def report_command(
    program: arguments.Program,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PAGE.html", help="Page to write.")],
    data: Annotated[
        str | None,
        typer.Option(help="Also run on these samples: mnist:test[:N], another set, a file, a folder of images."),
    ] = None,
    device: arguments.Device = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first chip.")] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="Chips (seeds) to run on.")] = 1,
    threads: arguments.Threads = None,
    labels: arguments.Labels = None,
    as_json: arguments.Json = False,
) -> None:
    """Write one page to look at: network, arrays with their cells, schedule, cost, and with --data accuracy and errors."""
    from xbcompile.cli.reporting import report_file

    result = report_file(program, output, data, device, seed, repeat, threads, labels=labels, show_progress=not as_json)
    for warning in result["warnings"]:
        terminal.warn(warning)
    if as_json:
        terminal.print_json(result)
    else:
        terminal.show_line(f"written: {result['path']} ({result['bytes']:,} bytes)")


@app.command("compare")
def compare_command(
    first: Annotated[
        Path, typer.Argument(metavar="A.xbar", help="A compiled program.", autocompletion=completing.programs)
    ],
    second: Annotated[Path, typer.Argument(metavar="B.xbar", help="Another one.", autocompletion=completing.programs)],
    data: Annotated[str | None, typer.Option(help="Also run both on these samples, as for run.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first chip.")] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="Chips (seeds) to run on.")] = 1,
    threads: arguments.Threads = None,
    labels: arguments.Labels = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PAGE.html", help="Also write a page to look at.")
    ] = None,
    plot: arguments.Plot = None,
    as_json: arguments.Json = False,
) -> None:
    """Show what differs between two programs: options, target, mapping, cost, and with --data accuracy."""
    from xbcompile.cli.comparing import compare_files
    from xbcompile.cli.plotting import check_plot, write_plot
    from xbcompile.report.comparison import print_comparison

    check_plot(plot, first, second, data)
    result = compare_files(first, second, data, seed, repeat, threads, output, labels=labels, show_progress=not as_json)
    write_plot(plot, "comparison", result)
    terminal.give(print_comparison, result, as_json)


@app.command("glossary")
def glossary_command(
    word: Annotated[
        str,
        typer.Argument(metavar="[WORD]", help="A word, or a part of one; none: all.", autocompletion=completing.words),
    ] = "",
    as_json: arguments.Json = False,
) -> None:
    """Explain the words of tables and messages."""
    from xbcompile.errors import ProgramError
    from xbcompile.report.glossary import found_terms, shown_words

    terms = found_terms(word)
    if not terms:
        raise ProgramError(f"the glossary has no word {word!r}; 'xbcompile glossary' lists all")
    if as_json:
        terminal.print_json({"terms": [term._asdict() for term in terms]})
        return
    for term in terms:
        terminal.show_line(f"{shown_words(term)}: {term.meaning}")


@app.command("demo")
def demo_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the program and its page.")
    ] = Path("xbcompile-demo"),
) -> None:
    """Compile an example network, check it, run it with device errors, write its page: each command, and what it prints."""
    from xbcompile.cli.demonstrating import demonstrate

    demonstrate(app, output)
