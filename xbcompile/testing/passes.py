"""What every pass promises, and the networks, contexts and references that tests of passes need."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
import onnx

import xbcompile
from xbcompile.cli.network_text import network_text
from xbcompile.errors import PassError
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import ArraySpec, Network
from xbcompile.onnx_graph.engine import open_session
from xbcompile.passes.contract import DevicePass, NetworkPass, Pass, PassContext, Stage
from xbcompile.passes.options import option_types, split_options
from xbcompile.reference.evaluate import model_outputs
from xbcompile.reference.host_graph import host_graph
from xbcompile.targets import Target, load_target

RowWeights = Callable[[Network], list[np.ndarray | None]]


def network_of(model: onnx.ModelProto) -> Network:
    """The network of a model, as compilation starts with it.

    Args:
        model: the user's.
    """
    return import_network(load_model(model))


def spec_with(levels: Any, drive: str = "analogue", target: str = "m2tj4") -> ArraySpec:
    """The array of a target with another level table, None for cells that hold any value, and another drive.

    Args:
        levels: cell levels, in ascending order; None: any value.
        drive: see `ArraySpec`.
        target: name of the target whose array it is otherwise.
    """
    spec = load_target(target).array_spec
    table = None if levels is None else np.asarray(levels, np.float32)
    neutral = np.full(spec.rows, 0 if table is None else np.abs(table).argmin(), np.uint8)
    limit = spec.cell_limit if table is None else None
    return replace(spec, levels=table, drive=drive, neutral_level=neutral, cell_limit=limit)


def context_of(
    target: str | ArraySpec = "ideal",
    calibration: dict[str, np.ndarray] | None = None,
    row_weights: RowWeights | None = None,
) -> PassContext:
    """What a pass sees when it compiles for this target; `row_weights` gives one array, or None, per layer.

    Args:
        target: name of the target, or its array.
        calibration: calibration inputs by graph input name; None: there are none.
        row_weights: see `PassContext`; None: all rows count alike.
    """
    spec = load_target(target).array_spec if isinstance(target, str) else target
    return PassContext(spec, calibration, row_weights or (lambda network: [None] * len(network.layers)))


def outputs_of(network: Network, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's outputs by its ideal meaning.

    Args:
        network: any stage of compilation.
        feeds: graph inputs by name, see `SampleAxes`.
    """
    return model_outputs(host_graph(network), network.samples, feeds, [value.name for value in network.outputs])


def text_of(network: Network) -> list[str]:
    """One line per node, without the geometry: for tests that state what a network becomes.

    Args:
        network: any stage of compilation.
    """
    return [
        line.strip().rsplit(", Contraction", 1)[0].rsplit(", Patches", 1)[0]
        for line in network_text(network).splitlines()
    ]


def assert_equals_model(
    network: Network, model: onnx.ModelProto, feeds: dict[str, np.ndarray], tolerance: float = 2e-5
) -> None:
    """The network gives what onnxruntime gives on the model as the user wrote it.

    Args:
        network: any stage of compilation.
        model: the user's.
        feeds: graph inputs by name; axis 0 counts samples.
        tolerance: relative to each value, and to the largest of its output (or 1).
    """
    session = open_session(model, optimized=False, threads=1)
    names = [value.name for value in session.get_outputs()]
    expected, found = dict(zip(names, session.run(None, feeds), strict=True)), outputs_of(network, feeds)
    assert found.keys() == expected.keys(), f"outputs are {sorted(found)}, and the model's {sorted(expected)}"
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name],
            value,
            rtol=tolerance,
            atol=tolerance * np.abs(value).max(initial=1),
            err_msg=f"output {name!r} differs from the model's",
        )


def assert_idempotent(each: NetworkPass, network: Network, context: PassContext) -> None:
    """Running the pass on its own result gives the same object back.

    Args:
        each: the pass.
        network: a result of it.
        context: what it sees.
    """
    assert each(network, context) is network, f"{each} changes a network that it has made itself"


def check_pass(
    each: NetworkPass,
    model: onnx.ModelProto,
    context: PassContext,
    feeds: dict[str, np.ndarray] | None = None,
    tolerance: float | None = None,
) -> Network:
    """Check all that every network pass promises, on one model.

    A pass is a frozen dataclass, whose options are read back as they are printed. It leaves the network that it is given and the
    context as they are, gives the same network again, with the same inputs and outputs, whose ideal meaning can be evaluated;
    a second run gives the same object, or refuses with PassError.

    Args:
        each: the pass, with the options to be checked.
        model: a model that it can be run on.
        context: what it sees.
        feeds: inputs on which the result is evaluated; axis 0 counts samples.
        tolerance: where given, the result equals the model on `feeds`, see `assert_equals_model`; None: the pass approximates.

    Returns:
        The resulting network, for further checks.
    """
    _check_declaration(each)
    network = network_of(model)
    before = copy.deepcopy(network), copy.deepcopy(context.calibration)
    after = each(network, context)
    _expect(network == before[0], each, "changed the network that it was given")
    _expect(_same(context.calibration, before[1]), each, "changed the calibration inputs")
    _expect(each(network, context) == after, each, "gave another network when it ran on the same one again")
    for side in ("inputs", "outputs"):
        _expect(getattr(after, side) == getattr(network, side), each, f"changed the network's {side}")
    _check_second_run(each, after, context)
    if feeds is not None:
        for name, value in outputs_of(after, feeds).items():
            _expect(bool(np.isfinite(value).all()), each, f"made output {name!r} not finite")
    if feeds is not None and tolerance is not None:
        assert_equals_model(after, model, feeds, tolerance)
    return after


def check_device_pass(
    each: DevicePass,
    model: onnx.ModelProto,
    target: str | Target,
    calibration: dict[str, np.ndarray] | None = None,
    passes: str | None = None,
    **options: Any,
) -> xbcompile.Session:
    """Check all that every device pass promises, on one model and one chip.

    A device pass is a frozen dataclass with a stage. What it fits on a chip is the same whenever it is fitted there, does not
    depend on threads, and a session that is given these corrections reads as the one in which they were fitted.

    Args:
        each: the pass, registered under its name.
        model: a model whose compilation the pass can end.
        target: the target, by name or as a value.
        calibration: calibration inputs; axis 0 counts samples.
        passes: the network passes before it; None takes those of the target's own pipeline.
        **options: further ones of `xbcompile.compile`.

    Returns:
        A session of chip 1 with the corrections, for further checks.
    """
    from xbcompile.passes.pipeline import parse_pipeline, print_pipeline

    _check_declaration(each)
    _expect(isinstance(getattr(each, "stage", None), Stage), each, "does not say at which stage it is fitted")
    chosen = load_target(target) if isinstance(target, str) else target
    before = [p for p in parse_pipeline(chosen.pipeline if passes is None else passes) if isinstance(p, NetworkPass)]
    program = xbcompile.compile(
        model, chosen, passes=print_pipeline([*before, each]), calibration=calibration, **options
    )
    first = xbcompile.Session(program, seed=1, threads=1)
    found = first.corrections
    _expect(xbcompile.Session(program, seed=1, threads=3).corrections == found, each, "fitted something else again")
    again = xbcompile.Session(program, seed=1, corrections=found)
    feeds = {name: value[:5] for name, value in (calibration or {}).items()}
    if feeds:
        _expect(
            _same(first.run_samples(feeds), again.run_samples(feeds)), each, "left something out of its corrections"
        )
    return again


def _check_declaration(each: Pass) -> None:
    kind = type(each)
    _expect(is_dataclass(kind) and _is_frozen(each), each, "is not a frozen dataclass")
    _expect(isinstance(getattr(kind, "name", None), str), each, "has no name")
    types = option_types(kind)
    text = str(each).removeprefix(each.name).removeprefix("{").removesuffix("}")
    given = {name: types[name].parse(value) for name, _, value in split_options(text)}
    _expect(kind(**given) == each, each, f"is not read back as it is printed; found {given}")
    documented = kind.__doc__ and not kind.__doc__.startswith(
        f"{kind.__name__}("
    )  # what dataclass writes where there is none
    _expect(bool(documented), each, "has no docstring, whose first line `xbcompile passes` shows")


def _is_frozen(each: Any) -> bool:
    return bool(type(each).__dataclass_params__.frozen)


def _check_second_run(each: NetworkPass, network: Network, context: PassContext) -> None:
    try:
        again = each(network, context)
    except PassError:
        return
    _expect(again is network, each, "changes a network that it has made itself")


def _expect(right: bool, each: Pass, text: str) -> None:
    assert right, f"pass {_text(each)} {text}"


def _text(each: Pass) -> str:
    return str(each) if is_dataclass(each) and hasattr(each, "name") else type(each).__name__


def _same(left: Any, right: Any) -> bool:
    """Equality by content of dictionaries of arrays, of arrays, and of anything that compares by content itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    return bool(left == right)
