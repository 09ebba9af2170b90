"""Inputs of a program: taken as arrays, then checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbcompile.data.datasets import holds_samples, load_data
from xbcompile.data.inputs import arrays_of
from xbcompile.data.shaping import transposition_hint
from xbcompile.errors import DataError, elided, plain, quoted
from xbcompile.onnx_graph.kinds import check_kind
from xbcompile.onnx_graph.types import numpy_type
from xbcompile.program.program import Program


def taken(program: Program, given: Any) -> dict[str, Any]:
    """Inputs by name as arrays of the types of a program's model, see `arrays_of`.

    Args:
        program: whose model has the inputs.
        given: values by name, or the only input's.

    Raises:
        DataError: names are no texts, or a value is no array, or none that the input's type can hold.
    """
    return arrays_of(program.network.inputs, given)


def all_samples(program: Program, given: Any) -> dict[str, Any]:
    """`taken`, of data of any kind: of what has labels, or comes in pieces or from files, all inputs.

    Args:
        program: whose model has the inputs.
        given: see `taken` and `load_data`.

    Raises:
        DataError: they do not fit the model.
    """
    network = program.network
    if not holds_samples(given, network.inputs):
        return taken(program, given)
    return load_data(given, network.inputs, network.samples, finite=False).inputs


def samples_taken(program: Program, given: Any) -> dict[str, Any]:
    """`taken`, of samples that go together and fit the model.

    Args:
        program: whose model has the inputs.
        given: see `taken`.

    Raises:
        DataError: there are none, they do not fit the model, or do not fill calls of it.
    """
    feeds, axes = taken(program, given), program.network.samples
    axes.checked_samples(feeds)
    check_feeds(program, axes.part(feeds, 0, axes.per_call))
    return feeds


def check_feeds(program: Program, feeds: Mapping[str, Any]) -> None:
    """Raise DataError when names, types or shapes of the inputs do not fit the model.

    Args:
        program: whose model has the inputs.
        feeds: what `taken` gave, or what one call of the model takes of it.
    """
    inputs = program.network.inputs
    for value in inputs:
        if value.name not in feeds:
            raise DataError(f"model input {quoted(value.name)} is missing; given: {elided(list(feeds))}")
        check_kind(value, feeds[value.name])
        _check_tensor(program, value, feeds[value.name])
    unknown = sorted(set(feeds) - {value.name for value in inputs})
    if not unknown:
        return
    name, fixed = unknown[0], program.options.fixed_inputs
    if name in fixed:
        raise DataError(
            f"input {quoted(name)} was fixed to {quoted(fixed[name])} when compiling; compile without that to feed it"
        )
    known = elided([value.name for value in inputs])
    raise DataError(
        f"the program has no input {quoted(name)}; its inputs are: {known}. An initializer that the model lists among its inputs "
        f"is a constant, unless it is compiled with --keep-input {plain(name)}"
    )


def _check_tensor(program: Program, value: Any, x: Any) -> None:
    dtype = numpy_type(value)
    if dtype is not None and dtype.kind != "O" and x.dtype != dtype:  # texts have many types
        raise DataError(f"input {quoted(value.name)} has type {x.dtype}; the model wants {dtype}")
    if not value.type.tensor_type.HasField("shape"):
        return
    wanted = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
    found = np.shape(x)
    if len(found) != len(wanted) or any(w is not None and w != f for w, f in zip(wanted, found, strict=True)):
        text = "x".join("?" if w is None else str(w) for w in wanted) or "a scalar"
        hint = transposition_hint(found, wanted, program.network.samples.inputs.get(value.name))
        raise DataError(
            f"input {quoted(value.name)} has shape {'x'.join(map(str, found)) or 'scalar'}; the model wants {text}{hint}"
        )
