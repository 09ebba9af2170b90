"""Fixing open dimensions of a model's inputs: the model becomes what an export with that size would be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import AttributeProto, GraphProto, ModelProto, TypeProto

from xbcompile.errors import ModelError, shown, written
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.dimensions import is_fixed, open_dimensions

LARGEST_SIZE = 2**31 - 1  # assumed: no axis of an input that fits into memory is longer


def parse_dims(settings: Iterable[str]) -> dict[str, int]:
    """Sizes by name from `NAME=SIZE` texts.

    Raises:
        ModelError: a text is not of that form, the size is no whole number, or a name has two sizes.
    """
    sizes: dict[str, int] = {}
    for setting in settings:
        name, equals, text = setting.rpartition("=")
        try:
            size = int(text)
        except ValueError:
            size = None
        if not equals or not name or size is None:
            raise ModelError(
                f"--dim {written(setting)}: write --dim NAME=SIZE with a whole number, for example --dim batch=1, or "
                f"--dim INPUT:AXIS=SIZE for a dimension without a name"
            )
        if sizes.setdefault(name, size) != size:
            raise ModelError(
                f"--dim {written(name)} is given twice, as {shown(sizes[name])} and {shown(size)}; give one size"
            )
    return sizes


def fix_dimensions(model: ModelProto, dims: Mapping[str, int]) -> ModelProto:
    """A copy of the model with these dimensions of its graph inputs fixed, everywhere that their symbol occurs.

    Args:
        model: a model from `load_model`; it is not changed.
        dims: sizes by symbol, or by `INPUT:AXIS` (which stands for the axis' symbol where it has one).

    Raises:
        ModelError: the model has no such open dimension, or a size is impossible.
    """
    if not dims:
        return model
    fixed = copied(model)
    symbols: dict[str, int] = {}
    for name, size in dims.items():
        _check_size(name, size)
        _fix(fixed, name, size, symbols)
    for type_proto in _types(fixed.graph):
        for dim in type_proto.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]
    return fixed


def _check_size(name: str, size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
        raise ModelError(f"dimension {written(name)}={shown(size)}: sizes are whole numbers from 1 to {LARGEST_SIZE}")


def _fix(model: ModelProto, name: str, size: int, symbols: dict[str, int]) -> None:
    """Fix an axis without a symbol in the model, or add the symbol to those to be fixed."""
    if name in {dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim} - {""}:
        _add_symbol(name, name, size, symbols)
        return
    source, _, axis_text = name.rpartition(":")
    value = next((value for value in model.graph.input if value.name == source), None)
    if value is None or not axis_text.isdecimal():
        raise _unknown(model, name)
    dims = value.type.tensor_type.shape.dim
    if int(axis_text) >= len(dims):
        raise ModelError(
            f'dimension {written(name)}={shown(size)}: input "{source}" has {len(dims)} axes, counted from 0'
        )
    dim = dims[int(axis_text)]
    if dim.dim_param:
        _add_symbol(dim.dim_param, name, size, symbols)
    elif is_fixed(dim) and dim.dim_value != size:
        raise ModelError(
            f"dimension {written(name)}={shown(size)}: the model fixes it to {dim.dim_value}; leave the option out, or "
            f"export the model with that size"
        )
    else:
        dim.dim_value = size


def _add_symbol(symbol: str, name: str, size: int, symbols: dict[str, int]) -> None:
    if symbols.setdefault(symbol, size) != size:
        raise ModelError(
            f'dimension {written(name)}={shown(size)}: it is "{symbol}", which is given {symbols[symbol]} too; give one size'
        )


def _unknown(model: ModelProto, name: str) -> ModelError:
    known = open_dimensions(model.graph.input)
    places = [f"{each} ({', '.join(f'axis {a} of {i}' for i, a in where)})" for each, where in known.items()]
    return ModelError(f'the model has no dimension "{name}"; its open dimensions are: {", ".join(places) or "none"}')


def _types(graph: GraphProto) -> Iterator[TypeProto]:
    """The declared types of a graph and of the bodies in it."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _types(attribute.g)
            for body in attribute.graphs:
                yield from _types(body)
