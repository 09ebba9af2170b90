"""The explain command's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbcompile.frontend.dims import parse_dims
from xbcompile.frontend.explain import explain
from xbcompile.frontend.inputs import parse_inputs
from xbcompile.frontend.sample_candidates import parse_axes


def explain_model(
    model: Path,
    digital: list[str] | None,
    dims: list[str] | None,
    batch_axis: list[str] | None,
    keep_inputs: list[str] | None,
    fixed_inputs: list[str] | None,
) -> dict[str, Any]:
    """What becomes of each node of the model file, as plain data."""
    axes, fixed = parse_axes(batch_axis or ()), parse_inputs(fixed_inputs or ())
    return explain(model, digital or (), parse_dims(dims or ()), axes, keep_inputs or (), fixed).to_json()
