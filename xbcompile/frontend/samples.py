"""Finding what counts as a sample: axes are guessed, and the ideal model, run on random inputs, decides.

Where a call takes any number of samples, a call on several must give what calls on each alone give, along one axis of every
output, and another value of one sample must leave what the others give as it is. Where a call takes a fixed number, the latter
must hold. Where a call takes one sample, there is nothing to find out. If no guess stands the test, a call is a sample.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from xbcompile.frontend.sample_candidates import Candidate, candidate_of, candidates, given_axes, ranks_of
from xbcompile.frontend.sample_probe import (
    EXACT,
    RANGES,
    ROUNDING,
    ModelProbe,
    Place,
    changed,
    place_of_changes,
    place_of_parts,
    same_elsewhere,
    samples_of,
)
from xbcompile.ir import Contraction, MatrixLayer, Network, SampleAxes
from xbcompile.onnx_graph.dimensions import is_fixed

SAMPLES = 3  # of a call where their number is open
SPREADS = (0.0, 2.0)  # of the random inputs, see `random_value`
LARGE_VALUES = 2**17  # assumed: of inputs with more values, one draw is enough
# Operators that take one range for all that they are given: a sample differs a little from what it is alone.
RANGE_OF_ALL = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})


@dataclass(frozen=True)
class _Found:
    """Where samples lie.

    Args:
        outputs: of each graph output.
        layers: of the input of each layer.
        mixed: see `SampleAxes`.
    """

    outputs: Mapping[str, Place] = field(default_factory=dict)
    layers: Mapping[str, Place] = field(default_factory=dict)
    mixed: bool = False


def with_samples(
    network: Network, second_axis: Collection[str] = (), given: Mapping[str, int | None] | None = None
) -> Network:
    """The network that knows which axes count samples; its layers number their vectors by them.

    Args:
        network: a network as it is imported.
        second_axis: graph inputs that recurrent operators read with their batch on axis 1.
        given: what users say: axes by input, or for `EVERY_INPUT`. Where it does not stand the test, samples go into calls of
            their own.

    Raises:
        ModelError: there is no such input, or it has no such axis.
    """
    said = given_axes(network.inputs, given or {})
    listed = [each for each in candidates(network.inputs, second_axis) if each.agrees(said)]
    if any(axis is not None for axis in said.values()) and not listed:
        listed = [candidate_of(network.inputs, said)]
    probe = ModelProbe(network)
    for each in listed:
        found = _test(probe, each) if each.counts else None
        if found is not None:
            return _applied(network, each, found)
    if any(axis is not None for axis in said.values()):
        return _applied(network, listed[0], _as_said(probe, listed[0]))
    return _applied(network, Candidate({value.name: None for value in network.inputs}, None), _Found())


def _test(probe: ModelProbe, candidate: Candidate) -> _Found | None:
    """Where samples lie if the candidate stands the test."""
    if candidate.size == 1:
        return _one_sample(probe, candidate)
    return _fixed_number(probe, candidate) if candidate.size else _any_number(probe, candidate)


def _one_sample(probe: ModelProbe, candidate: Candidate) -> _Found:
    """An axis of size 1 holds the sample of a call: the inputs' own where an output has it, else the first."""
    likely = next(iter(candidate.counts.values()))
    shapes = {value.name: _stated_shape(value) for value in probe.network.outputs}
    if any(likely >= len(shape) or shape[likely] != 1 for shape in shapes.values()):
        call = probe.first_call({}, 1)
        shapes = shapes if call is None else {name: getattr(call[1].get(name), "shape", ()) for name in shapes}

    def place(shape: tuple[int, ...]) -> Place:
        if len(shape) > likely and shape[likely] == 1:
            return Place(likely, len(shape))
        return Place(shape.index(1), len(shape)) if 1 in shape else Place()

    return _Found({name: place(shape) for name, shape in shapes.items()})


def _stated_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(int(dim.dim_value) if is_fixed(dim) else 0 for dim in value.type.tensor_type.shape.dim)


def _any_number(probe: ModelProbe, candidate: Candidate) -> _Found | None:
    """The test where a call takes any number of samples: all together, each alone, and one changed."""
    ranges = bool(probe.operators & RANGE_OF_ALL)
    places: dict[str, Place] = {}
    for spread in SPREADS:
        call = probe.first_call(candidate.counts, SAMPLES, spread)
        if call is None:
            return None
        feeds, together = call
        alone = [probe.call(_only(feeds, candidate.counts, sample)) for sample in range(SAMPLES)]
        other = probe.call(changed(feeds, candidate.counts, 1, SAMPLES))
        random = probe.random_outputs(feeds, together)
        for name in {*probe.outputs, *probe.layer_inputs.values()} & together.keys():
            parts = [None if each is None else each[name] for each in alone]
            place = place_of_parts(together[name], parts, name in random, RANGES if ranges else ROUNDING)
            if name in probe.outputs:
                if place is None or place.inner or other is None:
                    return None
                tolerance = RANGES if ranges else EXACT
                if name not in random and not same_elsewhere(together[name], other[name], place, 1, SAMPLES, tolerance):
                    return None
            places[name] = places.get(name, place or Place()) if place else Place()
        if sum(getattr(value, "size", 0) for value in feeds.values()) > LARGE_VALUES:
            break
    return _found(probe, places, mixed=ranges)


def _found(probe: ModelProbe, places: Mapping[str, Place], mixed: bool = False) -> _Found:
    layers = {layer: probe.place_in(layer, places) for layer in probe.layer_inputs}
    return _Found({name: places.get(name, Place()) for name in probe.outputs}, layers, mixed)


def _only(feeds: Mapping[str, Any], axes: Mapping[str, int], sample: int) -> dict[str, Any]:
    """The inputs of one sample."""
    cut = {name: samples_of(feeds[name], axis, sample, sample + 1) for name, axis in axes.items()}
    return dict(feeds) | cut


def _fixed_number(probe: ModelProbe, candidate: Candidate) -> _Found | None:
    """The test where a call takes a fixed number of samples: the first and the last are changed."""
    places = _changes(probe, candidate)
    if places is None or any(name not in places or places[name].inner for name in probe.outputs):
        return None
    return _found(probe, places)


def _changes(probe: ModelProbe, candidate: Candidate) -> dict[str, Place] | None:
    """Where samples lie in those tensors in which a change of one sample leaves the others; None where nothing can be run."""
    assert candidate.size is not None
    call = probe.first_call({}, candidate.size)
    if call is None:
        return None
    feeds, together = call
    number, likely = candidate.size, next(iter(candidate.counts.values()))
    calls = {sample: probe.call(changed(feeds, candidate.counts, sample, number)) for sample in (0, number - 1)}
    places = {}
    for name in {*probe.outputs, *probe.layer_inputs.values()} & together.keys():
        after = {sample: values[name] for sample, values in calls.items() if values is not None}
        if len(after) == len(calls) and all(
            isinstance(value, np.ndarray) for value in (together[name], *after.values())
        ):
            place = place_of_changes(together[name], after, number, likely)
            if place is not None:
                places[name] = place
    return places


def _as_said(probe: ModelProbe, candidate: Candidate) -> _Found:
    """What users say, though samples mix or the model refuses random inputs: each call is as small as the model allows."""
    likely = next(iter(candidate.counts.values()))
    if candidate.size:
        places = _changes(probe, candidate) or {}
        return _Found({name: places.get(name, Place(likely)) for name in probe.outputs}, mixed=True)
    call = probe.first_call(candidate.counts, SAMPLES)
    single = None if call is None else probe.call(_only(call[0], candidate.counts, 0))
    if call is None or single is None:
        return _Found({name: Place(likely) for name in probe.outputs}, mixed=True)
    found = {name: place_of_parts(call[1][name], [single[name]] * SAMPLES, by_shape=True) for name in probe.outputs}
    return _Found({name: replace(place or Place(), shared=False) for name, place in found.items()}, mixed=True)


def _applied(network: Network, candidate: Candidate, found: _Found) -> Network:
    """The network with axes of samples."""
    numbered = {
        layer.name: found.layers[layer.name].axis or 0
        for layer in network.layers
        if layer.name in found.layers and _is_numbered(layer, found.layers[layer.name])
    }
    alone = found.mixed or len(numbered) < len(found.layers)
    samples = SampleAxes(
        inputs=dict(candidate.axes),
        outputs={value.name: found.outputs.get(value.name, Place()).axis for value in network.outputs},
        ranks=ranks_of(network.inputs),
        call=candidate.size or (1 if alone else None),
        shared=tuple(name for name, place in found.outputs.items() if place.shared),
        mixed=found.mixed,
    )
    if samples.call != 1 or samples.mixed:
        network = network.with_layers(
            replace(layer, sample_axis=numbered[layer.name]) for layer in network.layers if layer.name in numbered
        )
    return replace(network, samples=samples)


def _is_numbered(layer: MatrixLayer, place: Place) -> bool:
    """Whether a layer can number its vectors by samples: they lie along an axis that it keeps, of a convolution the first."""
    if place.axis is None or place.inner:
        return False
    if isinstance(layer.geometry, Contraction):
        return place.axis != place.rank + layer.geometry.input_axis
    return place.axis == 0
