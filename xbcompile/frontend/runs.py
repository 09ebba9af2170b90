"""What a network that was imported must still have for a program of it to be made: one verdict for all who ask."""

from __future__ import annotations

from xbcompile.errors import ModelError, ScheduleError
from xbcompile.ir import Network
from xbcompile.onnx_graph import engine
from xbcompile.reference.host_graph import host_graph

LARGEST_STEPS = 50_000  # assumed: a schedule of more time steps tells nobody anything and takes minutes to make


def check_steps(network: Network) -> None:
    """Raise ScheduleError for a recurrence of so many steps that no schedule should list them."""
    for recurrence in network.recurrences:
        if (recurrence.steps or 1) > LARGEST_STEPS:
            raise ScheduleError(
                f"recurrence {recurrence.name!r} has {recurrence.steps:,} steps, and a schedule lists at most "
                f"{LARGEST_STEPS:,}; export the model with that dimension open: then one step is scheduled, and sequences of "
                f"any length run"
            )


def check_runs(network: Network) -> None:
    """Refuse what `compile` refuses whatever the target: for those who look at a model and compile no program.

    Args:
        network: as it was imported.

    Raises:
        ModelError: onnxruntime cannot load the host graph, as where it has no kernel for a digital operator.
        ScheduleError: see `check_steps`.
    """
    check_steps(network)
    try:
        engine.open_session(host_graph(network), once=True)
    except engine.ERRORS as error:
        raise cannot_run(error) from None


def cannot_run(error: Exception) -> ModelError:
    """The error of a network that onnxruntime refuses."""
    return ModelError(f"onnxruntime cannot run the compiled model: {engine.one_line(error)}")
