"""The user's faults, one class per kind of input; our own faults stay ordinary exceptions.

A message says what is wrong, where (node, layer, key), the value found, the values allowed and what to try. The
command line prints it as one line and exits with status 1; a Python caller catches `XbcompileError`.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any

MOST_CHARACTERS = 2000  # of a message: names in it may be of any length, and hold any characters


def elided(names: Sequence[str], most_characters: int = 100) -> str:
    """Names for a message, each `plain`: as many as there is room for, at least one, and how many more; "none" for none."""
    shown = [plain(name) for name in names[:1]]
    for name in names[1:]:
        if len(", ".join([*shown, plain(name)])) > most_characters:
            break
        shown.append(plain(name))
    more = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more:,} more" if more else "")


def _in_one_line(message: str) -> str:
    """The message in one line, without the middles of names that are very long, or its own where it is too long."""
    line = re.sub(r"\S{300,}", lambda name: f"{name[0][:150]}...{name[0][-100:]}", " ".join(message.splitlines()))
    if len(line) <= MOST_CHARACTERS:
        return line
    return f"{line[: MOST_CHARACTERS // 2]} ... {line[5 - MOST_CHARACTERS // 2 :]}"


class _Short(reprlib.Repr):
    """Like reprlib's, but also of integers with more digits than Python writes."""

    def repr_int(self, x: int, level: int) -> str:
        """As it is up to 64 bits."""
        return f"a whole number of {x.bit_length()} bits" if x.bit_length() > 64 else repr(x)


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 60, 60


def shown(value: Any) -> str:
    """A value found, for a message: in a few words on one line, whatever it is."""
    return " ".join(_SHORT.repr(value).split())


def written(text: str) -> str:
    """What was written on the command line, for a message: as `shown`, without quotes."""
    return shown(text)[1:-1]


def quoted(value: object, most_characters: int = 200) -> str:
    """A name, a path or any other value for a message, on one line: of a long text the beginning, of others as `shown`.

    Args:
        value: what was found.
        most_characters: of a text, so many at most.
    """
    if not isinstance(value, str | bytes):
        return shown(value)
    text = repr(value[: most_characters + 1])
    return text if len(text) <= most_characters + 2 else f"{text[:most_characters]}..."


def plain(name: str, most_characters: int = 200) -> str:
    """A name for a message: as it is where it is short and can be printed, else as `quoted`.

    Args:
        name: of anything.
        most_characters: so many at most.
    """
    return name if name.isprintable() and len(name) <= most_characters else quoted(name, most_characters)


class XbcompileError(Exception):
    """Base of every error that the user can mend; its message is one line of at most `MOST_CHARACTERS`."""

    def __init__(self, message: str) -> None:
        super().__init__(_in_one_line(message))


class ModelError(XbcompileError):
    """The ONNX model cannot be read, or holds something that cannot be compiled."""


class DataError(XbcompileError):
    """A data set or a calibration file is missing, damaged, or does not fit the model's inputs."""


class ExtensionError(XbcompileError):
    """An installed package extends this one by a name that is taken, or by something that cannot be loaded."""


class PipelineError(XbcompileError):
    """The pass pipeline text names an unknown pass or option, or gives an impossible value."""


class PassError(XbcompileError):
    """A pass cannot run on this network, on this target, or behind the passes before it."""


class TargetError(XbcompileError):
    """A target description is unknown, malformed or out of range, or a network breaks the target's demands."""


class ScheduleError(XbcompileError):
    """The matrices cannot be mapped with the options given."""


class ProgramError(XbcompileError):
    """A program file is damaged, of another format version, or not a program at all."""


class RunError(XbcompileError):
    """A run cannot be made with the threads, the memory or the samples at a time that are asked for."""


class VerifyError(XbcompileError):
    """A program is wrong; `findings` lists every check that failed, one line each."""

    def __init__(self, findings: list[str]) -> None:
        self.findings = findings
        super().__init__("; ".join(findings))
