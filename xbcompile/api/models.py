"""What a caller may give as a model: a file, a model in memory, or a module of torch, which torch's own exporter turns into one.

torch is imported where a module of torch is given, and nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import io
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types

from xbcompile.errors import ModelError, quoted
from xbcompile.frontend.load import parsed

# Operators whose nodes are called as the module that they come from.
_WITH_WEIGHTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum"}
_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's newer exporter writes the module of a node
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_WORDS = 300  # characters of an exporter's message that are told


def model_of(source: Any, sample: Any = None, batch_axis: Mapping[str, int | None] | None = None) -> Any:
    """A path or an ONNX model, of whatever a caller gives.

    Args:
        source: path, onnx.ModelProto or its bytes, a module of torch, or what `torch.onnx.export` or `torch.export.export` gave.
        sample: inputs with which a module of torch can be called: a tensor or array, a tuple of them, or a dict by name.
        batch_axis: the axis of samples by input name, "*" for all; axis 0 where it does not say.

    Raises:
        ModelError: it is none of these, there is no sample for a module, or torch cannot run or export it.
    """
    if isinstance(source, str | os.PathLike | onnx.ModelProto):
        if sample is not None:
            raise ModelError("sample is for modules of torch: an ONNX model says what its inputs are; leave it out")
        return source
    if isinstance(source, bytes):
        try:
            return parsed(source, "the model")
        except DecodeError:
            raise ModelError(
                f"the {len(source)} bytes are not an ONNX model, or a truncated one; give what SerializeToString returns"
            ) from None
    if _is_of_torch(source, "Module"):
        return _exported(source, sample, batch_axis or {})
    if _is_of_torch(source, "ONNXProgram"):
        return named_by_modules(source.model_proto, ())
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    raise ModelError(
        f"a {kind} is no model; give the path of an .onnx file, an onnx.ModelProto, its bytes, or a torch module with sample=..."
    )


def _is_of_torch(value: object, name: str) -> bool:
    return any(each.__name__ == name and each.__module__.startswith("torch.") for each in type(value).__mro__)


def _exported(module: Any, sample: Any, batch_axis: Mapping[str, int | None]) -> onnx.ModelProto:
    import torch

    if sample is None:
        raise ModelError(
            f"a module of torch ({type(module).__name__}) is exported with inputs to call it with; give sample=..., a tensor of "
            "one batch, or a tuple of the module's arguments"
        )
    arguments = _arguments(torch, module, sample)
    names = list(arguments)
    values = tuple(arguments.values())
    axes = {name: axis for name in names if (axis := _axis(batch_axis, name, arguments[name])) is not None}
    with _evaluating(torch, module):
        try:
            module(*values)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise ModelError(
                f"module {type(module).__name__} cannot be called with this sample: {_words(error)}; give what forward takes"
            ) from error
        model = _export(torch, module, names, values, axes)
        model.graph.name = type(module).__name__
    return named_by_modules(model, {name for name, _ in module.named_modules()})


def _arguments(torch: Any, module: Any, sample: Any) -> dict[str, Any]:
    """Tensors by the name of `forward`'s argument."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    open_ended = any(each.kind == each.VAR_POSITIONAL for each in parameters)
    given = list(sample) if isinstance(sample, tuple | list) else [sample]
    if isinstance(sample, Mapping):
        unknown = [name for name in sample if name not in names]
        names = [name for name in names if name in sample]
        given = [sample[name] for name in names]
        if unknown:
            raise ModelError(f"sample has {quoted(unknown[0])}, which forward of {type(module).__name__} does not take")
    names += [f"input_{i}" for i in range(len(names), len(given))] if open_ended else []
    if len(given) > len(names):
        raise ModelError(f"sample has {len(given)} values; forward of {type(module).__name__} takes {len(names)}")
    return {name: _tensor(torch, each, name) for name, each in zip(names, given, strict=False)}


def _tensor(torch: Any, value: Any, name: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value
    try:
        return torch.from_numpy(np.ascontiguousarray(value))
    except (TypeError, ValueError) as error:
        raise ModelError(f"sample {quoted(name)} is no tensor but a {type(value).__name__}: {_words(error)}") from None


def _axis(batch_axis: Mapping[str, int | None], name: str, value: Any) -> int | None:
    axis = batch_axis.get(name, batch_axis.get("*", 0))
    return axis if axis is not None and axis < value.ndim else None


@contextmanager
def _evaluating(torch: Any, module: Any) -> Iterator[None]:
    """The module as it infers, without gradients; afterwards each part trains as before."""
    training = {each: each.training for each in module.modules()}
    logging.disable(logging.WARNING)
    try:
        module.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            yield
    finally:
        logging.disable(logging.NOTSET)
        for each, was in training.items():
            each.training = was


def _export(
    torch: Any, module: Any, names: Sequence[str], values: tuple[Any, ...], axes: Mapping[str, int]
) -> onnx.ModelProto:
    """The module as ONNX, by torch's newer exporter where onnxscript is installed, which that one needs."""
    failures = (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError, KeyError, AttributeError)
    newer = find_spec("onnxscript") is not None
    export = _by_export if newer else _by_script
    try:
        try:
            return export(torch, module, names, values, axes)
        except failures:
            if not axes:
                raise
            return export(torch, module, names, values, {})  # what the module does with its batch leaves that no choice
    except failures as error:
        hint = "" if newer else "; torch's newer exporter may: pip install onnxscript"
        raise ModelError(
            f"torch cannot export module {type(module).__name__} to ONNX: {_words(error)}{hint}; or export it yourself and give "
            "the model"
        ) from error


def _by_export(
    torch: Any, module: Any, names: Sequence[str], values: tuple[Any, ...], axes: Mapping[str, int]
) -> onnx.ModelProto:
    if axes and all(each.shape[axes[name]] == 1 for name, each in zip(names, values, strict=True) if name in axes):
        # A size of 1 is taken for a constant.
        values = tuple(
            torch.cat([each, each], axes[name]) if name in axes else each
            for name, each in zip(names, values, strict=True)
        )
    shapes = tuple({axes[name]: torch.export.Dim.DYNAMIC} if name in axes else None for name in names)
    program = torch.onnx.export(
        module,
        values,
        dynamo=True,
        input_names=list(names),
        dynamic_shapes=shapes if axes else None,
        verbose=False,
    )
    return program.model_proto


def _by_script(
    torch: Any, module: Any, names: Sequence[str], values: tuple[Any, ...], axes: Mapping[str, int]
) -> onnx.ModelProto:
    file = io.BytesIO()
    open_axes = {name: {axis: "batch"} for name, axis in axes.items()}
    torch.onnx.export(module, values, file, dynamo=False, input_names=list(names), dynamic_axes=open_axes)
    return parsed(file.getvalue(), "the model that torch exported")


def _words(error: BaseException) -> str:
    """What the first of the errors that led to this one says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return " ".join(lines)[:_WORDS] or type(error).__name__


def named_by_modules(model: onnx.ModelProto, modules: Collection[str]) -> onnx.ModelProto:
    """A model whose nodes with weights are called as the modules of torch that they come from; changed in place.

    Args:
        model: as torch's exporters write it.
        modules: names of all modules; empty: not known.
    """
    taken = Counter(node.name for node in model.graph.node)
    for node in model.graph.node:
        wanted = _module_name(node, modules) if node.op_type in _WITH_WEIGHTS else ""
        if not wanted:
            continue
        taken[node.name] -= 1
        node.name = next(each for each in _numbered(wanted) if not taken[each])
        taken[node.name] += 1
    return model


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _module_name(node: onnx.NodeProto, modules: Collection[str]) -> str:
    """The module that a node comes from, as `named_modules` calls it; empty where that is the whole one, or not known."""
    weight = next((name for name in node.input if name.endswith((".weight", ".in_proj_weight"))), "")
    if weight:
        return weight.rpartition(".")[0]
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                return ""
            return scopes[-2] if isinstance(scopes, list) and len(scopes) > 1 and isinstance(scopes[-2], str) else ""
    found = ""
    for part in node.name.split("/")[1:-1]:
        found = next((each for each in _candidates(found, part) if each in modules), "")
    return found


def _candidates(above: str, part: str) -> Iterator[str]:
    """Names that a part of a scope may stand for: relative, or with the name above it, and numbered where it is called again."""
    for each in (part, re.sub(r"_\d+$", "", part)):
        for name in (each, each.rpartition(".")[2]):
            yield f"{above}.{name}" if above else name
