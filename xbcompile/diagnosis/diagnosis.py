"""Where a program's error comes from: each source measured by switching it off.

The error of a layer's output is the device's output minus what the user's model has there, in mean square over vectors and
outputs. States are compared in which one source after the other is on:
    y0   the user's model's own tensor
    y1   + weights: what the cells stand for (and whatever else the passes approximate), exact inputs
    y2   + coding: inputs coded, devices exact
    y3.. + systematic, saturation, rounding, random: the device's own sources (`xbcompile.targets.error_sources`)
    y    + inherited: all before saw the model's own inputs; now the inputs that the device's earlier layers give
The steps e_i = y_i - y_(i-1) add up to the whole error e exactly. Their mean squares do not, for want of the cross terms
2 <e_i, e_j>: <e, e> = sum <e_i, e_i> + sum of cross terms, which is checked. A source's share is <e_i, e> / <e, e>: its square
and half of its cross terms, so that shares add up to 1; one that takes away from others' errors has a negative share.

All is taken twice: with the program's digital corrections (device passes), fitted anew in every state as they would be on such
a chip: gains and offsets of outputs on the model's own inputs (so that earlier layers have no part in them before the last
step), offsets of columns and gains of tiles as in a session of that state; and without this layer's corrections, earlier
layers keeping theirs. What one source does depends on those that are on, so the order of the states matters; the end-to-end
figures have every source off alone, and on alone, in whole sessions (`xbcompile.diagnosis.ablation`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np

from xbcompile.diagnosis.ablation import PROGRAM_SOURCES, AblationSession, model_layers, model_of, tensor_name
from xbcompile.errors import DataError, ProgramError
from xbcompile.ir import Recurrence
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.ir.vectors import collect, lay_out
from xbcompile.notebook import html_table, printable
from xbcompile.passes.contract import OutputsPass
from xbcompile.program.program import Program, device_passes
from xbcompile.reference.evaluate import CHUNK_SAMPLES, model_outputs
from xbcompile.runtime.chip_view import MeasuredLayer
from xbcompile.runtime.dataflow import Pending, walk
from xbcompile.runtime.feeds import samples_taken
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.player import vector_range
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.runtime.references import reference_outputs
from xbcompile.runtime.statistics import StatisticsCollector
from xbcompile.units import percent

INHERITED = "inherited"
_NAMED = 6  # layers in one line
# The identity holds to float64 rounding of sums whose terms may be far larger than what is left of them.
IDENTITY_TOLERANCE = 1e-9


@dataclass(frozen=True)
class SourceError:
    """What one source adds to a layer's output error.

    Args:
        source: its name.
        mean_square: mean of e_i^2 over vectors and outputs; None where it cannot be measured.
        share: <e_i, e> / <e, e>; None where it cannot be measured or there is no error at all.
    """

    source: str
    mean_square: float | None
    share: float | None


@dataclass(frozen=True)
class Decomposition:
    """A layer's output error and its parts.

    Args:
        sources: in the order of the states.
        whole: mean square of the whole error, measured on its own.
        cross_terms: sum of all cross terms 2 <e_i, e_j>, i < j.
        residual: |sum of mean squares + cross terms - whole|, relative to the sum of mean squares.
    """

    sources: tuple[SourceError, ...]
    whole: float
    cross_terms: float
    residual: float

    @property
    def largest(self) -> str | None:
        """The source with the largest share; None where there is no error."""
        shares = {each.source: each.share for each in self.sources if each.share is not None}
        return max(shares, key=lambda name: shares[name]) if shares else None


@dataclass(frozen=True)
class LayerDiagnosis:
    """One layer.

    Args:
        layer: its name.
        reference: "model", or "program" where the model has no tensor of the layer's output name: then the layer's own ideal
            meaning is the reference, and weights and coding cannot be measured.
        vectors: output vectors compared.
        variance: variance of the reference over vectors, mean over outputs; what mean squares are to be seen against.
        saturated_fraction: part of the device's readings at the end of its range; None where it has no range.
        corrected: with the program's digital corrections.
        uncorrected: without this layer's.
    """

    layer: str
    reference: str
    vectors: int
    variance: float
    saturated_fraction: float | None
    corrected: Decomposition
    uncorrected: Decomposition


@dataclass(frozen=True)
class EndToEnd:
    """The whole program with some sources on.

    Args:
        case: "model", "device" (all on), "without" (`source` off), or "alone" (`source` on).
        source: which one; None for "model" and "device".
        score: what the caller's score gives for the first graph output; None without one, or where not `possible`.
        relative_error: root mean square error of the first graph output over its standard deviation (as for layers); None
            where it is no float tensor or does not vary, or where not `possible`.
        possible: False where weights cannot be switched off, as the model has no tensor before some layer.
    """

    case: str
    source: str | None
    score: float | None
    relative_error: float | None
    possible: bool = True


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """All that `diagnose` found.

    Args:
        sources: those that this program and device have, in the order of the states; `inherited` apart.
        layers: per matrix layer, in order of execution.
        end_to_end: whole sessions.
    """

    sources: tuple[str, ...]
    layers: tuple[LayerDiagnosis, ...]
    end_to_end: tuple[EndToEnd, ...]

    def __repr__(self) -> str:
        largest = "; ".join(f"{each.layer}: {each.corrected.largest or 'no error'}" for each in self.layers[:_NAMED])
        more = f"; and {len(self.layers) - _NAMED} more" if len(self.layers) > _NAMED else ""
        return printable(f"<Diagnosis, largest source of error by layer: {largest}{more}>")

    def _repr_html_(self) -> str:
        """Each layer's error over its standard deviation, the shares of the sources, and the whole network without each."""
        columns = ("layer", "error / std", *(f"share of {name}" for name in (*self.sources, INHERITED)))
        rows = []
        for each in self.layers:
            shares = {source.source: source.share for source in each.corrected.sources}
            error = None if not each.variance > 0 else (each.corrected.whole / each.variance) ** 0.5
            rows.append(
                (each.layer, _percent(error), *(_percent(shares.get(name)) for name in (*self.sources, INHERITED)))
            )
        cases = [
            (" ".join(filter(None, (row.case, row.source))), _number(row.score), _percent(row.relative_error))
            for row in self.end_to_end
        ]
        ends = html_table(("the whole program", "score", "output error"), cases, most=len(cases))
        return html_table(columns, rows, "Output error of layers, with corrections", 60) + ends


def diagnose(
    program: Program,
    feeds: Mapping[str, Any],
    device: str | None = None,
    seed: int = 0,
    score: Callable[[np.ndarray], float] | None = None,
    progress: Callable[[str, float], None] | None = None,
    threads: int | None = None,
) -> Diagnosis:
    """Measure what each source of error costs, per layer and end to end.

    Tensors of all layers are held for all samples.

    Args:
        program: the program, with its model.
        feeds: graph inputs by name, at least two samples; see `xbcompile.data.inputs.arrays_of`.
        device: a device name of the program's target; None takes the default.
        seed: which chip.
        score: accuracy, or anything else, of the first graph output.
        progress: told what is measured next, and the part of all measurements (0 to 1) that is done.
        threads: worker threads; None takes one per processor.

    Raises:
        ProgramError: the program does not hold its model, or has layers inside a recurrence.
        TargetError: no such device, or its errors cannot be told apart.
        DataError: fewer than two samples, inputs that do not fit, or tensors that are not finite.
    """
    model_of(program)
    if program.network.recurrences:
        recurrence = program.network.recurrences[0]
        raise ProgramError(
            f"layers {', '.join(repr(layer.name) for layer in recurrence.layers)} are inside a recurrence: what they read "
            "holds their own errors of earlier steps, and diagnose cannot tell these apart; compare whole runs instead: "
            f"`xbcompile run`, with sources of error set to 0 by --set, or with --digital '{_origin(program, recurrence)}'"
        )
    feeds = samples_taken(program, feeds)
    samples = program.network.samples.samples(feeds)
    if samples < 2:
        raise DataError(f"{samples} sample shows no variance to measure errors against; give at least 2")
    sources = (*PROGRAM_SOURCES, *program.target.error_sources(device))
    sessions = _Sessions(PreparedProgram(program, threads), device, seed)
    steps, reached = len(program.network.layers) + 1 + 2 * len(sources), count()

    def tell(text: str) -> None:
        if progress is not None:
            progress(text, min(next(reached) / steps, 1.0))

    layers = _LayerWalk(program, feeds, sources, sessions, tell).run()
    rows = _end_to_end(program, feeds, sources, sessions, score, tell)
    return Diagnosis(sources, layers, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else percent(fraction)


def _origin(program: Program, recurrence: Recurrence) -> str:
    """The model's node that became a recurrence."""
    names = {layer.name for layer in recurrence.layers}
    found = (record.node for record in program.network.records if names.intersection(record.layers))
    return next(found, recurrence.name)


class _Sessions:
    """Sessions by the sources that are on, each made once."""

    def __init__(self, prepared: PreparedProgram, device: str | None, seed: int) -> None:
        self.prepared, self.device, self.seed = prepared, device, seed
        self.model_layers = model_layers(prepared.program)
        self._made: dict[frozenset[str], AblationSession] = {}

    def of(self, on: Collection[str]) -> AblationSession:
        """The session with these sources."""
        key = frozenset(on)
        if key not in self._made:
            self._made[key] = AblationSession(self.prepared, key, self.device, self.seed, self.model_layers)
        return self._made[key]


class _Fit(NamedTuple):
    """One device pass that is fitted to outputs, and its calibration chunks' places in the walk."""

    each: OutputsPass
    first: int
    last: int
    samples: int
    references: list[list[np.ndarray]]  # [layer][chunk]


class _LayerWalk:
    """Goes through the network once with three kinds of chunks side by side: the data with the model's own tensors after
    every layer, the data with the device's, and the calibration inputs with the model's.
    """

    def __init__(
        self,
        program: Program,
        feeds: dict[str, np.ndarray],
        sources: tuple[str, ...],
        sessions: _Sessions,
        tell: Callable[[str], None],
    ) -> None:
        self.program, self.sources, self.tell = program, sources, tell
        axes = program.network.samples
        data = [chunk for _, chunk in axes.parts(feeds, CHUNK_SAMPLES)]
        self.count = len(data)
        self.chunks = data + data
        self.fits: list[_Fit] = []
        for each in device_passes(program.pipeline):
            if isinstance(each, OutputsPass) and program.calibration:
                part = axes.first(program.calibration, axes.whole(each.samples) or axes.per_call)
                chunks = [chunk for _, chunk in axes.parts(part, CHUNK_SAMPLES)]
                first = len(self.chunks)
                self.chunks += chunks
                self.fits.append(
                    _Fit(each, first, len(self.chunks), axes.samples(part), reference_outputs(program, part))
                )
        self.references = reference_outputs(program, feeds)
        self.from_model = _tensors_of_model(program)
        self.sessions = [sessions.of(sources[:k]) for k in range(1, len(sources) + 1)]
        self.full = self.sessions[-1]
        self.results: dict[int, LayerDiagnosis] = {}

    def run(self) -> tuple[LayerDiagnosis, ...]:
        """Every layer's diagnosis."""
        walk(self.full.digital, self.chunks, self.layer)
        return tuple(self.results[i] for i in range(len(self.program.network.layers)))

    def layer(self, at: Pending, values: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        """Measure one layer; the tensors that its readers see. See `walk`; there is one step."""
        index, layer, n = at.layer, self.program.network.layers[at.layer], self.count
        self.tell(f"layer {layer.name}")
        tensors = [each[layer.input] for each in values]
        for session in self.sessions:
            session.note_starts(index, values)
        references = self._references(index, self.references[index], tensors[:n])
        for value in references:
            if not np.isfinite(value).all():
                raise DataError(
                    f"the model's tensor {tensor_name(layer)!r} has values that are not finite on this data"
                )
        given = [self._references(index, fit.references[index], tensors[fit.first : fit.last]) for fit in self.fits]
        vectors = [collect(layer, value).astype(np.float64) for value in references]
        # Without the model's tensor the reference is y2 itself: what is on in it cannot be seen.
        unmeasured = () if self.from_model[index] else PROGRAM_SOURCES
        executors = [session.executors[index] for session in self.sessions[len(unmeasured) :]]
        corrections = [self._fitted(each, index, tensors, given) for each in executors]
        full, statistics = self.full.executors[index], StatisticsCollector(self.full.device)
        corrected, uncorrected = _Accumulator(len(executors) + 1), _Accumulator(len(executors) + 1)
        outputs: list[np.ndarray] = []
        first_vector = 0
        first_sample = 0
        for reference, x, arrived, feeds in zip(vectors, tensors[:n], tensors[n : 2 * n], self.chunks[:n], strict=True):
            samples = self.program.network.samples.samples(feeds)
            reads = vector_range(self.full.placed, at, first_sample, len(reference), samples)
            first_sample += samples
            raw = [each.vectors_before_gain(x, reads)[0] for each in executors]
            last, shape = full.vectors_before_gain(arrived, reads, statistics)
            final = last * full.correction.gain + full.correction.shift
            states = [y * gain + shift for y, (gain, shift) in zip(raw, corrections, strict=True)]
            corrected.add([reference, *states, final])
            if self.full.placed.corrections.column_offset is not None or full.correction.tile_gain is not None:
                plain = [session.plain[index] for session in self.sessions[len(unmeasured) :]]
                raw = [each.vectors_before_gain(x, reads)[0] for each in plain]
                last = self.full.plain[index].vectors_before_gain(arrived, reads)[0]
            uncorrected.add([reference, *raw, last])
            outputs.append(lay_out(layer, final.astype(arrived.dtype), shape))
            first_vector += len(reference)
        names = (*self.sources[len(unmeasured) :], INHERITED)
        self.results[index] = LayerDiagnosis(
            layer=layer.name,
            reference="model" if self.from_model[index] else "program",
            vectors=first_vector,
            variance=float(np.concatenate(vectors).var(axis=0).mean()),
            saturated_fraction=statistics.result(layer.name).saturated_fraction if statistics.readings else None,
            corrected=corrected.result(names, unmeasured),
            uncorrected=uncorrected.result(names, unmeasured),
        )
        return [*references, *outputs, *(value for chunks in given for value in chunks)]

    def _references(self, index: int, from_model: list[np.ndarray], exact: list[np.ndarray]) -> list[np.ndarray]:
        """What the layer should give for exact inputs, chunk by chunk: the model's tensor, or y2."""
        if self.from_model[index]:
            return from_model
        layer, results = self.program.network.layers[index], []
        for x in exact:
            y, shape = self.sessions[len(PROGRAM_SOURCES) - 1].executors[index].vectors_before_gain(x)
            results.append(lay_out(layer, y.astype(x.dtype), shape))
        return results

    def _fitted(
        self, executor: LayerExecutor, index: int, tensors: list[np.ndarray], references: list[list[np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gain and shift of a layer's outputs that the device passes give on exact calibration inputs; see `commission`."""
        correction = LayerCorrection.none(len(executor.correction.gain))
        for fit, given in zip(self.fits, references, strict=True):
            inputs = tensors[fit.first : fit.last]
            measured = MeasuredLayer(executor, inputs, given, fit.samples, new=correction, fixed_tiles=True)
            found = fit.each.fit_layer(measured)
            assert isinstance(found, MeasuredLayer)
            correction = found.correction
        return correction.gain, correction.shift


class _Accumulator:
    """Sums of products of the steps between states, and of the whole error, over chunks."""

    def __init__(self, steps: int) -> None:
        self.products = np.zeros((steps, steps))
        self.whole = 0.0
        self.values = 0

    def add(self, states: list[np.ndarray]) -> None:
        """One chunk: every state's output vectors, the reference first."""
        steps = np.stack([(after - before).ravel() for before, after in pairwise(states)])
        self.products += steps @ steps.T
        self.whole += float(np.square(states[-1] - states[0]).sum())
        self.values += states[0].size

    def result(self, names: tuple[str, ...], unmeasured: tuple[str, ...]) -> Decomposition:
        """The decomposition, by the names of the steps; RuntimeError where squares and cross terms miss the whole."""
        products, whole = self.products / self.values, self.whole / self.values
        squares = np.diagonal(products)
        cross_terms = float(2 * np.triu(products, 1).sum())
        size = float(squares.sum())
        residual = abs(size + cross_terms - whole) / size if size else 0.0
        if not residual <= IDENTITY_TOLERANCE:
            raise RuntimeError(f"the parts of an error miss the whole by {residual:.3g} of their size")
        shares = products.sum(axis=1) / whole if whole else None
        sources = [SourceError(name, None, None) for name in unmeasured]
        for i, name in enumerate(names):
            sources.append(SourceError(name, float(squares[i]), None if shares is None else float(shares[i])))
        return Decomposition(tuple(sources), whole, cross_terms, residual)


def _tensors_of_model(program: Program) -> list[bool]:
    """Whether the user's model writes each layer's output tensor."""
    written = {name for node in model_of(program).graph.node for name in node.output}
    return [tensor_name(layer) in written for layer in program.network.layers]


def _end_to_end(
    program: Program,
    feeds: dict[str, np.ndarray],
    sources: tuple[str, ...],
    sessions: _Sessions,
    score: Callable[[np.ndarray], float] | None,
    tell: Callable[[str], None],
) -> tuple[EndToEnd, ...]:
    """Whole sessions: all on, every source off alone, every source on alone."""
    name = program.network.outputs[0].name
    axes = program.network.samples
    reference = axes.samples_first(name, model_outputs(model_of(program), axes, feeds, [name])[name])
    cases: list[tuple[str, str | None, Collection[str]]] = [("device", None, sources)]
    cases += [("without", source, [other for other in sources if other != source]) for source in sources]
    cases += [("alone", source, [source]) for source in sources]
    rows = [EndToEnd("model", None, None if score is None else score(reference), relative_error(reference, reference))]
    for case, source, on in cases:
        if "weights" not in on and None in sessions.model_layers:
            rows.append(EndToEnd(case, source, None, None, possible=False))
            continue
        tell(" ".join(filter(None, (case, source))))
        output = axes.samples_first(name, sessions.of(on).run_samples(feeds, observe=False)[name])
        found = None if score is None else score(output)
        rows.append(EndToEnd(case, source, found, relative_error(output, reference)))
    return tuple(rows)


def relative_error(output: np.ndarray, reference: np.ndarray) -> float | None:
    """Root mean square error over the reference's standard deviation over samples (variance as mean over outputs).

    Args:
        output: what a program gives, [samples, ...].
        reference: what the model gives, of the same shape.

    Returns:
        the ratio; None where the reference is no float tensor or does not vary.
    """
    if reference.dtype.kind != "f":
        return None
    exact = reference.reshape(len(reference), -1).astype(np.float64)
    variance = float(exact.var(axis=0).mean())
    if not variance > 0:
        return None
    error = np.square(output.reshape(exact.shape) - exact).mean()
    return float(np.sqrt(error / variance))
