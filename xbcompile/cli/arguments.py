"""Arguments and options that several commands share, as the command line declares them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from xbcompile.cli import completing

Program = Annotated[
    Path, typer.Argument(metavar="P.xbar", help="A compiled program.", autocompletion=completing.programs)
]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL.onnx", help="The model, or the name of an example network.", autocompletion=completing.models
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="Device of the program's target; see 'xbcompile targets'.", autocompletion=completing.devices),
]
Pipeline = Annotated[
    str | None,
    typer.Option(
        help="Pipeline, as in 'PASS,PASS{option=value}'; `xbcompile passes` lists them.",
        show_default="the target's",
        autocompletion=completing.pipelines,
    ),
]
Digital = Annotated[list[str] | None, typer.Option(help="Name or pattern of nodes that stay digital; repeatable.")]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=SIZE", help="Fix an open dimension of the inputs (or INPUT:AXIS); repeatable."),
]
BatchAxis = Annotated[
    list[str] | None,
    typer.Option(
        "--batch-axis",
        metavar="[INPUT=]AXIS",
        help="Which axis counts samples, or none, of all inputs or one; repeatable.",
        show_default="found",
    ),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state", metavar="OUT=IN", help="Samples follow each other: feed OUT to IN in the next; repeatable."
    ),
]
KeptInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-input", metavar="NAME", help="Leave this initializer an input; others are constants. Repeatable."
    ),
]
FixedInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=VALUE", help="Fix an input to a value, as rate=16000 or s=[1,2]; repeatable."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="Name of a shipped target, or path of a .toml description.",
        show_default="mram64",
        autocompletion=completing.targets,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(help="Inputs to fit on: mnist:train:1000, a file (.npz, .npy, .csv), or a folder of images."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one of the target's numbers; repeatable."),
]
# Options of the mapping: None leaves the default, or what --like says.
Arrays = Annotated[
    int | None, typer.Option(help="Physical arrays; 0: as many as there are weight images.", show_default="1")
]
Batch = Annotated[int | None, typer.Option(help="Inferences served between two weight updates.", show_default="1")]
Cuts = Annotated[
    str | None,
    typer.Option(
        help="greedy; balanced: equal blocks; free: cut residual strips while packing; auto: the best of all.",
        show_default="auto",
    ),
]
Packing = Annotated[
    str | None,
    typer.Option(
        help="dense: fewest images; in-order: an array takes each image once; none: one tile per image; auto: the better "
        "of the first two.",
        show_default="auto",
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        help="latency, throughput, energy, weight-updates, or a sum: latency=0.5,energy=0.5.", show_default="latency"
    ),
]
Effort = Annotated[
    float | None, typer.Option(help="Work allowed to the searches; 0: heuristics alone.", show_default="1.0")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="A single output above it is of the second class.",
        show_default="0 for a raw logit, 0.5 for a sigmoid",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Worker threads of each process.", show_default="one per processor, shared by --jobs"),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Array or column of labels in the data.",
        show_default="labels, label, y, targets, or target",
    ),
]
Required = Annotated[
    list[str] | None,
    typer.Option("--require", metavar="LIMIT", help="accuracy>=0.95, ...; repeatable. Exit status 1 if not met."),
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Also draw the result: FILE.png or FILE.svg.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def given(context: typer.Context, options: type[Any]) -> dict[str, Any]:
    """What a command was given of the fields of options, which its parameters are named like; None where left out."""
    found = {each.name: context.params[each.name] for each in fields(options) if each.name in context.params}
    return {name: None if isinstance(value, list | tuple) and not value else value for name, value in found.items()}
