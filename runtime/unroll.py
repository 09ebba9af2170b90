"""The schedule of a network whose recurrences have an open number of steps, for the number that a run finds.

Such a recurrence is scheduled with one step. In a run of T steps the reads of its body are repeated T - 1 times after its last
one, and after those of all that its inputs are made of, which the first step may not need; an image that its array does not hold
any more by then is written first, and arrays end as they started.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from xbcompile.ir import ArraySpec, MatrixLayer, Network, Recurrence, Schedule, Use
from xbcompile.ir.schedule import READ, STEP, WRITE


@dataclass(frozen=True)
class StepUses:
    """Which use each layer of a recurrence is at each step: `first + step * count + place of the layer in the body`.

    Args:
        uses: all uses of the network.
        of_layer: by layer index, the uses of its steps in order; a layer outside of recurrences has one.
    """

    uses: tuple[Use, ...]
    of_layer: tuple[tuple[int, ...], ...]


def step_uses(network: Network) -> StepUses:
    """Uses of a network by layer and step, as `Network.uses` lists them."""
    found: list[list[int]] = [[] for _ in network.layers]
    for number, use in enumerate(network.uses):
        found[use.layer].append(number)
    return StepUses(network.uses, tuple(map(tuple, found)))


def open_recurrences(network: Network) -> list[Recurrence]:
    """Recurrences whose number of steps the model leaves open."""
    return [each for each in network.recurrences if each.steps is None]


def unrolled(
    network: Network, schedule: Schedule, spec: ArraySpec, steps: Mapping[str, int]
) -> tuple[Schedule, StepUses]:  # fmt: skip
    """The schedule with so many steps of each open recurrence, and its uses.

    Args:
        network: the network.
        schedule: with one step of each open recurrence.
        spec: the array.
        steps: number of steps by name of the recurrence.
    """
    plain = step_uses(network)
    uses, of_layer, table = list(plain.uses), [list(each) for each in plain.of_layer], schedule.steps
    index = {layer.name: i for i, layer in enumerate(network.layers)}
    for recurrence in open_recurrences(network):
        body = [index[layer.name] for layer in recurrence.layers]
        first = {of_layer[layer][0] for layer in body}
        mine = (table["operation"] == READ) & np.isin(table["use"], list(first))
        count = steps[recurrence.name]
        if count == 0:
            table = table[~mine]
            continue
        if not np.any(mine):
            continue
        repeats = []
        for _ in range(count - 1):
            again = {}
            for layer in body:
                again[of_layer[layer][0]] = len(uses)
                of_layer[layer].append(len(uses))
                uses.append(replace(uses[of_layer[layer][0]]))
            part = table[mine].copy()
            part["use"] = [again[use] for use in part["use"].tolist()]
            repeats.append(part)
        needed = {use for layer in _leading_to(network, recurrence) for use in of_layer[index[layer.name]]}
        waited_for = mine | ((table["operation"] == READ) & np.isin(table["use"], list(needed)))
        last = int(np.flatnonzero(waited_for)[-1]) + 1
        table = _inserted(table, last, np.concatenate([*repeats, table[:0]]))
    table = _on_ticks(_with_writes(table, schedule, spec))
    result = replace(schedule, steps=table, period_s=max(schedule.period_s, float(table["end_s"].max(initial=0.0))))
    if schedule.stationary and not np.any(table["operation"] == WRITE):
        result = replace(
            result, period_s=schedule.period_s + float(table["end_s"].max(initial=0)) - schedule.makespan_s
        )
    return result, StepUses(tuple(uses), tuple(map(tuple, of_layer)))


def _leading_to(network: Network, recurrence: Recurrence) -> list[MatrixLayer]:
    """The layers that a recurrence's inputs are made of."""
    tensors, layers = set(recurrence.input_names), list[MatrixLayer]()
    for node in reversed(network.nodes[: network.nodes.index(recurrence)]):
        if tensors.isdisjoint(node.output_names):
            continue
        tensors.update(node.input_names)
        layers += node.layers if isinstance(node, Recurrence) else [node] if isinstance(node, MatrixLayer) else []
    return layers


def _inserted(table: np.ndarray, at: int, extra: np.ndarray) -> np.ndarray:
    """Steps one after another behind step `at` - 1; all later ones are put off by their time."""
    duration = extra["end_s"] - extra["start_s"]
    now = float(table["end_s"][:at].max(initial=0.0))
    extra = extra.copy()
    extra["start_s"] = now + np.cumsum(duration) - duration
    extra["end_s"] = now + np.cumsum(duration)
    later = table[at:].copy()
    for name in ("start_s", "end_s"):
        later[name] += float(duration.sum())
    return np.concatenate([table[:at], extra, later])


def _with_writes(table: np.ndarray, schedule: Schedule, spec: ArraySpec) -> np.ndarray:
    """The table with a write before each read whose array holds another image, and arrays that end as they start."""
    held, parts, put_off = schedule.initial.tolist(), [], 0.0
    for row in table:
        array, image = int(row["array"]), int(row["image"])
        if row["operation"] == READ and held[array] != image:
            parts.append(_write(array, image, float(row["start_s"]) + put_off, spec))
            put_off += spec.t_write_s
        moved = row.copy()
        moved["start_s"] += put_off
        moved["end_s"] += put_off
        parts.append(moved.reshape(1))
        held[array] = image
    for array, image in enumerate(schedule.initial.tolist()):
        if image >= 0 and held[array] != image:
            end_s = max((float(part["end_s"][0]) for part in parts), default=0.0)
            parts.append(_write(array, image, end_s, spec))
    return np.concatenate([np.asarray(part) for part in parts]) if parts else table


def _on_ticks(table: np.ndarray) -> np.ndarray:
    """The table with times that are multiples of one power of two, 2**-50 of the whole: equal moments are equal numbers."""
    total_s = float(table["end_s"].max(initial=0.0))
    if total_s:
        tick_s = math.ldexp(1.0, math.frexp(total_s)[1] - 50)
        for name in ("start_s", "end_s"):
            table[name] = np.rint(table[name] / tick_s) * tick_s
    return table


def _write(array: int, image: int, start_s: float, spec: ArraySpec) -> np.ndarray:
    step = np.zeros(1, STEP)
    step["operation"], step["array"], step["image"], step["rows"] = WRITE, array, image, spec.rows
    step["tile"] = step["use"] = -1
    step["start_s"], step["end_s"] = start_s, start_s + spec.t_write_s
    return step
