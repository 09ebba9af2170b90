"""What to try against the largest source of error of a layer: what passes say of themselves, then what else there is."""

from __future__ import annotations

from itertools import islice

from xbcompile.diagnosis.diagnosis import INHERITED
from xbcompile.diagnosis.trial import TrialRuns
from xbcompile.ir import MatrixLayer
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.contract import Advice, LayerTrouble
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.program import Program

_MOST_IDEAS = 2
# What no pass can do.
_OTHERWISE = {
    "weights": ("a target with more levels", "training for this array's weights"),
    "coding": ("calibration inputs, or low= and high=, whose range fits the layer's inputs better",),
    "systematic": ("more calibration samples for the passes that are fitted on the chip", "training with this spread"),
    "saturation": ("a converter with a wider range", "tiles with fewer driven rows"),
    "rounding": ("a converter with more codes", "more slices per input, over which rounding averages"),
    "random": ("a quieter readout",),
}


def advice(program: Program, layer: MatrixLayer, source: str, trials: TrialRuns | None = None) -> str:
    """What to try where a source is the largest on a layer: passes that exist and are not in use, then the rest.

    Args:
        program: the program.
        layer: the layer.
        source: its largest source of error.
        trials: tries each pass; those that do not help are left out. None: nothing is tried.
    """
    if source == INHERITED:
        return "it comes with its inputs: mend the layers before it first"
    used = {each.name: each for each in parse_pipeline(program.pipeline)}
    trouble = LayerTrouble(source, program.spec, layer.input_code, used, program.target.has_defects)
    helpful = [each for each in map(load_pass, pass_names()) if source in each.helps_against]
    helpful.sort(key=lambda each: each.helps_against[source])
    offered = (found for each in helpful if (found := each.advice(trouble)) is not None)
    ideas = list(islice(filter(None, (_idea(each, trials) for each in offered)), _MOST_IDEAS))
    return "try " + ", or ".join([*ideas, *_OTHERWISE[source]][:_MOST_IDEAS])


def _idea(found: Advice, trials: TrialRuns | None) -> str | None:
    """An advice with what it gains; None where it does not help."""
    if trials is None:
        return str(found)
    trial = trials.try_out(found.use)
    return f"{found} ({trial})" if trial is not None and trial.helps else None
