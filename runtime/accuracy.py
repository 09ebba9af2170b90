"""Accuracy of outputs, and of the user's own model in onnxruntime: what every run is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from xbcompile.data.arrays import whole_labels
from xbcompile.errors import DataError
from xbcompile.ir import Network
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import CHUNK_SAMPLES, model_outputs
from xbcompile.reference.output_values import output_values
from xbcompile.reference.sequence import with_initial_states
from xbcompile.runtime.feeds import check_feeds, taken

# Classes that one value above or not above a threshold can stand for.
_PAIRS = ((0, 1), (-1, 1))


@dataclass(frozen=True)
class Classifier:
    """How the class of a sample is read from a model's first output.

    Of several values the largest has the class's place. A single one is the class itself where it is a whole number; else it is
    compared with a threshold, and classes are labelled 0 and 1, or -1 and +1.

    Args:
        threshold: values above it are of the second class; None: the value is the class itself, also as a float.
        reason: why this threshold.
        given: whether the user gave it: then whole numbers are compared with it, too.
    """

    threshold: float | None = 0.5
    reason: str = ""
    given: bool = False

    @classmethod
    def of(cls, network: Network, threshold: float | None = None) -> Self:
        """The classifier of a network: the threshold given, or the middle of the values that its output can take.

        An output without bounds, a raw logit, has the threshold 0, and one that is only known to be above 0 keeps 0.5.

        Args:
            network: the network.
            threshold: from the user.

        Raises:
            DataError: a threshold that is no number, or for an output of several values.
        """
        if threshold is not None:
            dims = [int(d.dim_value) for d in network.outputs[0].type.tensor_type.shape.dim[1:]]
            if not math.isfinite(threshold):
                raise DataError(f"threshold {threshold:g}: it must be a finite number")
            if math.prod(size or 1 for size in dims) > 1:
                raise DataError(_no_threshold(threshold, network.outputs[0].name, math.prod(dims)))
            return cls(threshold, "given", given=True)
        values = output_values(network)
        if values.is_class:
            return cls(None, "the output is the class")
        if math.isfinite(values.low) and math.isfinite(values.high):
            middle = (values.low + values.high) / 2
            return cls(middle, f"the middle of the output's {values.low:g} to {values.high:g}")
        if values.low >= 0:
            return cls(0.5, "the output is not below 0")
        return cls(0.0, "raw logit: the output has no bounds")

    def rule(self, output: np.ndarray) -> dict[str, Any]:
        """How outputs like this one are read: `rule` ("largest", "class" or "threshold"), `threshold` and `reason`.

        Args:
            output: [samples, ...].
        """
        kind = self._kind(output)
        told = kind == "threshold"
        return {"rule": kind, "threshold": self.threshold if told else None, "reason": self.reason if told else ""}

    def accuracy(self, output: np.ndarray, labels: Any) -> float:
        """Fraction of samples classified right; one with a NaN among its outputs is not.

        Args:
            output: numbers [samples, ...].
            labels: whole numbers [samples].

        Raises:
            DataError: labels are no such numbers or there are none, no class can be read from the output, or labels are none
                of its classes.
        """
        labels = whole_labels(labels, "accuracy")
        flat = self._flat(output, len(labels))
        kind = self._kind(output)
        if kind == "largest":
            _check_labels(labels, flat.shape[1])
            return float(((flat.argmax(axis=1) == labels) & ~np.isnan(flat).any(axis=1)).mean())
        values = flat[:, 0]
        if kind == "class":
            return float((values == labels).mean())
        pair = next((each for each in _PAIRS if np.isin(labels, each).all()), None)
        if pair is None:
            raise DataError(
                f"labels go from {labels.min()} to {labels.max()}, and the model gives one value per sample, which tells two "
                "classes apart; allowed: 0 and 1, or -1 and 1"
            )
        low, high = pair
        predicted = np.where(values > (self.threshold if values.dtype.kind != "b" else 0.5), high, low)
        return float(((predicted == labels) & ~np.isnan(values)).mean())

    def _kind(self, output: np.ndarray) -> Literal["largest", "class", "threshold"]:
        if output[:1].size > 1:
            return "largest"
        whole = output.dtype.kind in "iu" and not self.given
        return "class" if whole or self.threshold is None else "threshold"

    def _flat(self, output: Any, samples: int) -> np.ndarray:
        """Numbers [samples, values]."""
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
            kind = output.dtype if isinstance(output, np.ndarray) else type(output).__name__
            raise DataError(f"the model's first output is no array of numbers but {kind}: leave the labels out")
        if output.ndim == 0 or len(output) != samples:
            raise DataError(
                f"the model's first output has shape {output.shape}, and there are {samples} labels: axis 0 must count samples"
            )
        if not samples:
            raise DataError(f"the model's first output has shape {output.shape}: there are no samples to be right")
        flat = output.reshape(samples, -1)
        if flat.shape[1] == 0:
            raise DataError(f"the model's first output has shape {output.shape}, without values")
        if self.given and flat.shape[1] > 1 and self.threshold is not None:
            raise DataError(_no_threshold(self.threshold, "", flat.shape[1]))
        return flat


def _no_threshold(threshold: float, name: str, values: int) -> str:
    output = f"output {name!r}" if name else "first output"
    return (
        f"threshold {threshold:g}: the model's {output} has {values} values per sample, of which the largest counts; "
        "a threshold is for a single one"
    )


def _check_labels(labels: np.ndarray, classes: int) -> None:
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()}; the model's first output has {classes} values per sample, whose "
            f"classes are 0 to {classes - 1}"
        )


def software_accuracy(
    program: Program,
    inputs: Mapping[str, Any],
    labels: Any,
    states: Mapping[str, str] | None = None,
    classifier: Classifier | None = None,
    chunk: int = CHUNK_SAMPLES,
) -> float | None:
    """Accuracy of the original model in onnxruntime on the same inputs; None where the program does not hold it.

    Args:
        program: holds the model.
        inputs: graph inputs by name, see `xbcompile.data.inputs.arrays_of`.
        labels: whole numbers [samples].
        states: see `Session.run_samples`.
        classifier: how classes are read; None: as the network says.
        chunk: samples of a call, where the model leaves that open.
    """
    if program.source is None:
        return None
    samples, name = program.network.samples, program.network.outputs[0].name
    feeds = with_initial_states(program.network, taken(program, inputs), states or {})
    check_feeds(program, samples.part(feeds, 0, samples.per_call))
    output = model_outputs(program.source, samples, feeds, [name], states, chunk)[name]
    return (classifier or Classifier.of(program.network)).accuracy(samples.samples_first(name, output), labels)
