"""What to try against the largest source of error of a layer: what passes say of themselves, then what else there is."""

from __future__ import annotations

from xbcompile.diagnosis.diagnosis import INHERITED
from xbcompile.ir import MatrixLayer
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.contract import LayerTrouble
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.program import Program
from xbcompile.targets.contract import HasDefectMap

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


def advice(program: Program, layer: MatrixLayer, source: str) -> str:
    """What to try where this source is the largest on a layer: passes that exist and are not in use, then the rest."""
    if source == INHERITED:
        return "it comes with its inputs: mend the layers before it first"
    used = {each.name: each for each in parse_pipeline(program.pipeline)}
    trouble = LayerTrouble(source, program.spec, layer.input_code, used, _has_defects(program))
    helpful = [each for each in map(load_pass, pass_names()) if source in each.helps_against]
    helpful.sort(key=lambda each: each.helps_against[source])
    ideas = [text for each in helpful if (text := each.advice(trouble)) is not None]
    return "try " + ", or ".join([*ideas, *_OTHERWISE[source]][:_MOST_IDEAS])


def _has_defects(program: Program) -> bool:
    """Whether a chip of the target has a defect map."""
    device = program.target.device()
    return isinstance(device, HasDefectMap) and device.cell_limits(0) is not None
