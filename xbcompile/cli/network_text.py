"""Networks between passes, as text."""

from __future__ import annotations

from collections.abc import Callable

from xbcompile.cli.characters import visible
from xbcompile.cli.streams import tell
from xbcompile.errors import PipelineError
from xbcompile.ir import DigitalSegment, Executed, Network, Recurrence
from xbcompile.passes.contract import NetworkPass, Pass
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.targets import Target


def network_printer(
    print_after: str | None, passes: str | None, target: Target
) -> Callable[[Pass, Network], None] | None:
    """A callback that prints the network after the named pass, or after every pass for 'all'."""
    if print_after is None:
        return None
    pipeline = parse_pipeline(target.pipeline if passes is None else passes)
    allowed = ["all", *(p.name for p in pipeline if isinstance(p, NetworkPass))]
    if print_after not in allowed:
        raise PipelineError(
            f"--print-after {print_after!r} is no network pass of the pipeline; allowed: {', '.join(allowed)}"
        )

    def show(each: Pass, network: Network) -> None:
        if print_after in ("all", each.name):
            for line in (f"after {each}:", *network_text(network).splitlines()):
                tell(line)

    return show


def network_text(network: Network) -> str:
    """One line per node, in order of execution; a recurrence's body is indented."""
    lines = []
    for node in network.nodes:
        lines.extend(_recurrence_lines(node) if isinstance(node, Recurrence) else [_node_line(node)])
    return "\n".join(map(visible, lines))


def _recurrence_lines(node: Recurrence) -> list[str]:
    steps = "as many steps as there are entries" if node.steps is None else f"{node.steps} steps"
    head = f"  recurrence {node.name}: ({', '.join(node.input_names)}) -> ({', '.join(node.output_names)}): {steps}"
    return [head, *(f"  {_node_line(inner)}" for inner in node.nodes)]


def _node_line(node: Executed) -> str:
    if isinstance(node, DigitalSegment):
        operators = ", ".join(n.op_type for n in node.model.graph.node)
        return (
            f"  digital {node.name}: ({', '.join(node.input_names)}) -> ({', '.join(node.output_names)}): {operators}"
        )
    code, input_code = node.weight_code, node.input_code
    weights = "real weights" if code is None else "continuous" if code.levels is None else f"{len(code.levels)} levels"
    inputs = "inputs as they are" if input_code is None else f"{input_code.scheme} x{input_code.bits}"
    shape = "x".join(map(str, node.shape))
    return f"  matrix {node.name}: {node.input} -> {node.output}: [{shape}], {weights}, {inputs}, {node.geometry}"
