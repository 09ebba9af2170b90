"""The characterize command's work."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.families.characterization import characterize
from xbcompile.targets.families.resistance_sum import ResistanceSumParameters
from xbcompile.units import si


def characterize_target(name: str, seed: int, vectors: int) -> dict[str, Any]:
    """Characterise a chip of a resistance-sum target."""
    target = load_target(name)
    if not isinstance(target.parameters, ResistanceSumParameters):
        raise TargetError(
            f"target {target.name!r} is of model {target.model}; characterize works on model resistance_sum"
        )
    return {"target": target.name, "seed": seed, **asdict(characterize(target.parameters, seed, vectors))}


def print_characterization(console: Console, result: dict[str, Any]) -> None:
    """The figures beside what they mean."""
    low, high = result["covered"]
    facts = f", chip {result['seed']}, W = R_H, {result['dot_products']:,} dot products"
    console.print(Text.assemble((result["target"], "bold"), facts))
    console.print(
        f"mean absolute error {result['mean_absolute_error_lsb']:.3f} LSB over dot products {low:g} to {high:g} "
        f"({result['mean_absolute_error_all_lsb']:.3f} LSB over all), digital offsets on {result['columns_with_offset']} columns"
    )
    console.print(f"delay {si(result['delay_shortest_s'], 's')} to {si(result['delay_longest_s'], 's')}")
    console.print(
        f"{result['tera_operations_per_s_per_w']:.1f} TOPS/W; writing the whole array {si(result['e_write_array_j'], 'J')}"
    )
