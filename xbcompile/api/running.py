"""Data through a program on simulated chips, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any

from xbcompile.api.evaluation import ChipRun, Evaluation, run_facts
from xbcompile.api.progress import shown_progress
from xbcompile.data.datasets import load_data
from xbcompile.errors import RunError
from xbcompile.ir.corrections import Corrections
from xbcompile.program.program import Program
from xbcompile.report.facts import Facts
from xbcompile.report.tables import print_run
from xbcompile.runtime import Cost
from xbcompile.runtime.prepared import MEMORY_BYTES
from xbcompile.targets import Device
from xbcompile.whole_numbers import whole_number

_MOST_CHIPS = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What a run gave; it shows itself as `xbcompile run` does.

    Args:
        facts: accuracy, statistics of layers, counters, energy and time; the keys of `xbcompile run --json`.
        outputs: of the last chip, by name.
        cost: of all chips together.
    """

    facts: Facts
    outputs: dict[str, Any]
    cost: Cost

    @property
    def accuracy(self) -> float | None:
        """Fraction of samples classified right, mean over chips; None without labels."""
        return None if self.facts["accuracy"] is None else float(self.facts["accuracy"]["mean"])

    @property
    def warnings(self) -> list[str]:
        """What to know before trusting the outputs."""
        return list(self.facts["warnings"])

    def __repr__(self) -> str:
        return "\n".join([repr(self.facts), *(f"warning: {each}" for each in self.warnings)])

    def _repr_html_(self) -> str:
        return Facts(self.facts, _print_with_warnings)._repr_html_()


def _print_with_warnings(console: Any, facts: dict[str, Any]) -> None:
    print_run(console, facts)
    for each in facts["warnings"]:
        console.print(f"warning: {each}")


def run(
    program: Program,
    data: Any,
    device: str | Device | None = None,
    seed: int = 0,
    *,
    labels: Any = None,
    chips: int = 1,
    corrections: Corrections | None = None,
    states: Mapping[str, str] | None = None,
    threshold: float | None = None,
    threads: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    progress: bool | Callable[[str, float], None] | None = None,
) -> Run:
    """Run data through a program on one simulated chip or more, each commissioned first.

    Args:
        program: what to run.
        data: `SET:test[:N]`; path of an .npz, .npy or .csv file or of a folder of images; arrays (or tensors) by input name, or
            the only input's; a pair of inputs and labels; a table of pandas; a data set of Hugging Face or torch; a
            DataLoader, or anything that gives batches. See docs/data.md.
        device: a device name of the program's target, or a Device; None: the target's default.
        seed: of the first chip.
        labels: the name of the labels in the data, where it is not `labels`, `label`, `y`, `targets` or `target`; or the labels.
        chips: how many, with seeds that follow each other.
        corrections: of the one chip; None: they are fitted, see `commission`.
        states: inputs by the output whose value of one sample they take in the next.
        threshold: a single output above it is of the second class; None: as the network says.
        threads: worker threads; None takes one per processor.
        memory_bytes: what simulating may take, see `Session`.
        progress: True: show a bar with the time that is left; or a function of what is done and the part (0 to 1) of all.

    Raises:
        DataError: the data or labels do not fit the model.
        RunError: no number of chips, or corrections for several.
        TargetError: no such device.
    """
    chips = _checked_chips(chips, device, corrections)
    network, states = program.network, dict(states or {})
    loaded = load_data(data, network.inputs, network.samples, states.values(), labels=labels, finite=False)
    evaluation = Evaluation(program, loaded, device, corrections, states, threshold, threads, memory_bytes)
    started = time.perf_counter()
    software = evaluation.software_accuracy()
    seeds = range(seed, seed + chips)
    runs: list[ChipRun] = []
    every = loaded.samples * chips

    def told(before: int, done: int) -> None:
        tell(f"{before + done:,} of {every:,} samples", (before + done) / every)

    with shown_progress("running", progress) as tell:
        for number, each in enumerate(seeds):
            further = partial(told, number * loaded.samples)
            runs.append(evaluation.run(each, not number, number == chips - 1, further))
    seconds = time.perf_counter() - started
    facts = run_facts(evaluation, runs, seeds, software, None, seconds)
    return Run(Facts(facts, print_run), runs[-1].outputs, reduce(add, (each.cost for each in runs)))


def _checked_chips(chips: int, device: str | Device | None, corrections: Corrections | None) -> int:
    """How many chips; what is of one chip alone is given for one."""
    chips = whole_number("chips", chips, 1, _MOST_CHIPS, "how many are simulated", RunError)
    if corrections is not None and chips > 1:
        raise RunError(f"corrections are of one chip, and {chips} are to be run; give chips=1, or no corrections")
    if not (device is None or isinstance(device, str)) and chips > 1:
        raise RunError(f"one device is given, and {chips} chips are to be run; give chips=1, or the name of a device")
    return chips
