"""Pipelines as text: `fold-batchnorm,quantize{scheme=levels levels=4 per=column},thermometer{bits=8}`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from xbcompile.errors import PassError, PipelineError
from xbcompile.ir import Network
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.contract import DevicePass, NetworkPass, Pass, PassContext
from xbcompile.passes.input_coding import InputCoding
from xbcompile.passes.options import QUOTED, option_types, required_options, split_options

MOST_CHARACTERS = 20_000  # assumed: of a pipeline; some hundred passes with all their options
_ITEM = re.compile(rf"\s*([A-Za-z][\w-]*)\s*(?:\{{((?:{QUOTED}|[^{{}}\"])*)\}})?\s*(,|$)", re.DOTALL)


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """Read a pipeline.

    Raises:
        PipelineError: not well formed, an unknown pass or option (with the nearest known name), a value of the wrong
            type or range, or a device pass before a network pass.
    """
    if len(text) > MOST_CHARACTERS:
        raise PipelineError(f"pipeline text of {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    passes: list[Pass] = []
    position = 0
    while position < len(text) and text[position:].strip():
        match = _ITEM.match(text, position)
        if match is None:
            raise PipelineError(
                f"pipeline text cannot be read at {text[position:][:30]!r}; write pass,pass{{option=value option=value}}"
            )
        passes.append(_make_pass(match[1], match[2] or ""))
        position = match.end()
        if match[3] == "," and not text[position:].strip():
            raise PipelineError("pipeline text ends with a comma; write pass,pass{option=value}")
    for first, second in pairwise(passes):
        if isinstance(first, DevicePass) and isinstance(second, NetworkPass):
            raise PipelineError(f"{first.name} is fitted on the device and must come after {second.name}")
        if isinstance(first, DevicePass) and isinstance(second, DevicePass) and first.stage > second.stage:
            raise PipelineError(f"{first.name} is fitted on what {second.name} leaves and must come after it")
    return tuple(passes)


def print_pipeline(passes: Iterable[Pass]) -> str:
    """The text that `parse_pipeline` reads back to the same passes."""
    return ",".join(str(p) for p in passes)


def run_pipeline(
    passes: Iterable[Pass],
    network: Network,
    context: PassContext,
    after: Callable[[Pass, Network], None] | None = None,
    note: Callable[[str, bool], None] | None = None,
) -> Network:
    """Run the network passes in order; `after` sees the network after each, `note` what it has to say (see `NetworkPass.note`)
    and whether it changed anything.

    Raises:
        PassError: a pass failed; the message names it and those before it.
    """
    done: list[str] = []
    for each in passes:
        if not isinstance(each, NetworkPass):
            continue
        before = network
        try:
            network = each(network, context)
        except Exception as error:  # whatever a pass raises, others' own too: told where, and raised again
            where = f"pass {each}" + (f" (after {','.join(done)})" if done else "")
            if isinstance(error, PassError):
                raise PassError(f"{where}: {error}") from None
            error.add_note(f"in {where}")  # a fault of the pass itself
            raise
        done.append(str(each))
        said = each.note(before, network)
        if said is not None and note is not None:
            note(said, network is not before)
        if after is not None:
            after(each, network)
    return network


def pipelines_with(passes: Iterable[Pass], each: Pass) -> Iterator[tuple[Pass, ...]]:
    """Pipelines with one pass more, which takes the place of one that does the same; the first that compiles is meant.

    Args:
        passes: the pipeline.
        each: the pass. A network pass is put as early as it can be, a device pass by its stage.
    """
    now = tuple(passes)
    alike = [i for i, other in enumerate(now) if _does_the_same(other, each)]
    if alike:
        yield (*now[: alike[0]], each, *now[alike[0] + 1 :])
        return
    last = sum(isinstance(other, NetworkPass) for other in now)
    if isinstance(each, DevicePass):
        place = last + sum(isinstance(other, DevicePass) and other.stage <= each.stage for other in now)
        yield (*now[:place], each, *now[place:])
        return
    for place in range(last + 1):
        yield (*now[:place], each, *now[place:])


def _does_the_same(first: Pass, second: Pass) -> bool:
    return first.name == second.name or (isinstance(first, InputCoding) and isinstance(second, InputCoding))


def _make_pass(name: str, options_text: str) -> Pass:
    if name not in pass_names():
        raise PipelineError(
            f"unknown pass {name!r}{_did_you_mean(name, pass_names())}; allowed: {', '.join(pass_names())}"
        )
    pass_class = load_pass(name)
    declared = option_types(pass_class)
    options: dict[str, Any] = {}
    for key, equals, text in split_options(options_text):
        if key not in declared:
            allowed = ", ".join(declared) or "none"
            raise PipelineError(f"pass {name} has no option {key!r}{_did_you_mean(key, declared)}; allowed: {allowed}")
        if not equals or not text:
            raise PipelineError(f"pass {name}: option {key!r} has no value; write {key}=value")
        if key in options:
            raise PipelineError(f"pass {name}: option {key!r} is given twice")
        try:
            options[key] = declared[key].parse(text)
        except ValueError as error:
            raise PipelineError(f"pass {name}: {key}={text} {error}") from None
    missing = [option for option in required_options(pass_class) if option not in options]
    if missing:
        raise PipelineError(f"pass {name}: option {missing[0]!r} must be given; write {name}{{{missing[0]}=value}}")
    try:
        return pass_class(**options)
    except PassError as error:
        raise PipelineError(f"pass {name}: {error}") from None


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
