"""What a plan is made for, read from a file of shapes or from a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from xbcompile.errors import DataError, ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.examples import is_example
from xbcompile.frontend.lower import nothing_lowered
from xbcompile.frontend.runs import check_runs
from xbcompile.ir import ArraySpec, Network, Use
from xbcompile.options import MOST_SLICES, MappingOptions
from xbcompile.passes.choose_coding import ChooseCoding
from xbcompile.passes.contract import Pass
from xbcompile.passes.input_coding import InputCoding
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.planning.planned import PlannedMatrix, PlannedNetwork, planned_network
from xbcompile.program.program import Program
from xbcompile.targets import Target

LARGEST_SIZE = 2**31 - 1  # tile tables are int32
_KEYS = ("name", "inputs", "outputs", "vectors", "groups", "slices", "after")
_FORM = "write [inputs, outputs] or an object with name, inputs, outputs, vectors (and groups, slices, after)"


def read_problem(
    source: str | os.PathLike[str] | onnx.ModelProto | Program | Sequence[Any], target: Target, options: MappingOptions
) -> PlannedNetwork:
    """Read what is to be planned.

    Args:
        source: path of an .onnx model, name of an example network, path of a .json file of shapes (`FILE.json:NAME` for one
            of several lists), a model in memory, a program (with the shapes and slices that passes left), or a list as such a
            file holds.
        target: its default pipeline says how many slices an input takes where neither the file nor the model does; 1
            where it codes no inputs.
        options: `digital`, `dims`, `batch_axis`, `keep_inputs` and `fixed_inputs`, of models only.

    Raises:
        DataError: a malformed file of shapes.
        ModelError: see `load_model`, `import_network` and `check_runs`; options of models for shapes; nothing to map.
        ScheduleError: a recurrence of too many steps.
    """
    of_models = any((options.digital, options.dims, options.batch_axis, options.keep_inputs, options.fixed_inputs))
    if isinstance(source, Program):
        if of_models:
            raise ModelError("digital nodes, dimensions and inputs belong to models; a program is compiled already")
        return _problem_of_network(source.network, source.spec, None, "as the program codes its inputs")
    coding = coding_of(parse_pipeline(target.pipeline))
    default = 1 if coding is None else coding.slices()
    says = f"target {target.name} codes no inputs" if coding is None else f"{coding.name} of target {target.name} says"
    slices_from = f"{default} per vector, as {says}"
    is_text = isinstance(source, str | os.PathLike)
    is_file = is_text and (os.fspath(source).endswith(".onnx") or is_example(source))  # type: ignore[arg-type]  # is_text
    if isinstance(source, onnx.ModelProto) or is_file:
        network = import_network(load_model(source, options.inputs), options.digital, options.batch_axis)  # type: ignore[arg-type]  # no list here
        check_runs(network)
        return _problem_of_network(network, target.array_spec, coding, slices_from)
    if of_models:
        raise ModelError("digital nodes, dimensions and inputs belong to models; shapes have none of them")
    name, entries = _load_shapes(os.fspath(source)) if is_text else ("shapes", source)  # type: ignore[arg-type]  # is_text
    return problem_of_shapes(entries, name, default, slices_from)


def coding_of(pipeline: Sequence[Pass]) -> InputCoding | None:
    """The pass of a pipeline that codes inputs first; None where none does."""
    for each in pipeline:
        if isinstance(each, InputCoding | ChooseCoding):
            return each.chosen() if isinstance(each, ChooseCoding) else each
    return None


def _problem_of_network(
    network: Network, spec: ArraySpec, coding: InputCoding | None, slices_from: str
) -> PlannedNetwork:
    """See `planned_network`; a network that cannot be planned is a user's error."""
    if not network.layers:
        raise ModelError(f"no matrix of the model can be put on arrays: {nothing_lowered(network.records)}")
    planned = planned_network(network, spec, coding)
    return replace(planned, slices_from=slices_from, notes=_open_sizes(planned.layers))


def _open_sizes(layers: Sequence[PlannedMatrix]) -> tuple[str, ...]:
    names = [layer.name for layer in layers if layer.vectors_per_inference is None]
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"vectors per inference of {names[0]}{more} depend on the size of the input; counted as 1 in reads, energy and "
        f"time; fix open dimensions with --dim NAME=SIZE",
    )


def _load_shapes(text: str) -> tuple[str, Any]:
    """Name and list of matrices of `FILE.json` or `FILE.json:NAME`."""
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".json"):
        path, name = text, ""
    file = Path(path)
    if not path.endswith(".json"):
        raise DataError(f"{path}: give an .onnx model, or a file of shapes whose name ends in .json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path of the shapes") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:  # also a number with too many digits
        raise DataError(f"{path}: not JSON: {error}") from None
    if isinstance(content, dict):
        return _one_list(content, path, name)
    if name:
        raise DataError(f"{path}: it holds one list, which has no names; give {path} without :{name}")
    return file.stem, content


def _one_list(content: dict[str, Any], path: str, name: str) -> tuple[str, Any]:
    names = [key for key, value in content.items() if isinstance(value, list)]
    if not names:
        raise DataError(f"{path}: an object without a list of matrices; {_FORM}, in a list")
    if not name and len(names) == 1:
        return names[0], content[names[0]]
    if name not in names:
        found = f"no list {name!r}" if name else f"{len(names)} lists"
        raise DataError(f"{path}: {found}; give one as {path}:NAME, of {', '.join(names)}")
    return name, content[name]


def problem_of_shapes(entries: Any, name: str, slices: int, slices_from: str) -> PlannedNetwork:
    """Matrices of a list of `[inputs, outputs]` and objects; each waits for the one before where it does not say.

    Args:
        entries: see `read_problem`.
        name: name of the whole, for messages too.
        slices: of matrices that do not say.
        slices_from: where that number comes from.

    Raises:
        DataError: anything else in the list.
    """
    if not isinstance(entries, list | tuple):
        raise DataError(f"{name}: {_shown(entries)} is no list of matrices; {_FORM}")
    if not entries:
        raise DataError(f"{name}: the list is empty; {_FORM} for each matrix")
    index: dict[str, int] = {}
    layers, uses = [], []
    for position, entry in enumerate(entries):
        where = f"{name}, matrix {position + 1} of {len(entries)}"
        fields = _fields(entry, where)
        label = fields.get("name", f"matrix{position + 1}")
        if not isinstance(label, str) or not label:
            raise DataError(f"{where}: name {_shown(label)} is no text")
        where = f"{where} ({label[:40]!r})"
        groups, inputs, outputs, vectors = (_size(fields, k, where) for k in ("groups", "inputs", "outputs", "vectors"))
        own = "slices" in fields
        layer = PlannedMatrix(label, groups, inputs, outputs, vectors, _size(fields, "slices", where, slices), own)
        uses.append(Use(position, position, layer.slices * vectors, _waits(fields, index, where), vectors))
        if index.setdefault(label, position) != position:
            raise DataError(f"{where}: matrix {index[label] + 1} has that name too; names must be unique")
        layers.append(layer)
    return PlannedNetwork(name, tuple(layers), tuple(range(len(layers))), tuple(uses), slices_from)


def _fields(entry: Any, where: str) -> dict[str, Any]:
    if isinstance(entry, list | tuple):
        if len(entry) != 2:
            raise DataError(f"{where}: {len(entry)} numbers; {_FORM}")
        return {"inputs": entry[0], "outputs": entry[1]}
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: found {_shown(entry)}; {_FORM}")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise DataError(f"{where}: unknown key {_shown(unknown[0])}; allowed: {', '.join(_KEYS)}")
    missing = [key for key in ("inputs", "outputs") if key not in entry]
    if missing:
        raise DataError(f"{where}: key {missing[0]!r} is missing; {_FORM}")
    return dict(entry)


def _size(fields: Mapping[str, Any], key: str, where: str, default: int = 1) -> int:
    value = fields.get(key, default)
    largest = MOST_SLICES if key == "slices" else LARGEST_SIZE
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise DataError(f"{where}: {key} is {_shown(value)}; give a whole number of 1 to {largest:,}")
    return value


def _waits(fields: Mapping[str, Any], index: Mapping[str, int], where: str) -> tuple[int, ...]:
    """Positions of the matrices that one waits for: those named, else the one before."""
    if "after" not in fields:
        return (len(index) - 1,) if index else ()
    names = fields["after"]
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        raise DataError(f"{where}: after is {_shown(names)}; give a list of names, [] for none")
    unknown = [each for each in names if each not in index]
    if unknown:
        raise DataError(
            f"{where}: it waits for {_shown(unknown[0])}, which is no matrix before it; write matrices in order of execution"
        )
    return tuple(sorted({index[each] for each in names}))


def _shown(value: Any) -> str:
    """A value of the file in a message, not too long."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # what no file can hold, or too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}..."
