"""The user's faults, one class per kind of input; our own faults stay ordinary exceptions.

A message says what is wrong, where (node, layer, key), the value found, the values allowed and what to try. The
command line prints it as one line and exits with status 1; a Python caller catches `XbcompileError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_CHARACTERS = 2000  # of a message: names in it may be of any length, and hold any characters


def elided(names: Sequence[str], most_characters: int = 100) -> str:
    """Names for a message: as many as there is room for, at least one, and how many more there are; "none" for none."""
    shown = list(names[:1])
    for name in names[1:]:
        if len(", ".join([*shown, name])) > most_characters:
            break
        shown.append(name)
    more = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more:,} more" if more else "")


def _in_one_line(message: str) -> str:
    """The message in one line, without the middles of names that are very long, or its own where it is too long."""
    line = re.sub(r"\S{300,}", lambda name: f"{name[0][:150]}...{name[0][-100:]}", " ".join(message.splitlines()))
    if len(line) <= MOST_CHARACTERS:
        return line
    return f"{line[: MOST_CHARACTERS // 2]} ... {line[5 - MOST_CHARACTERS // 2 :]}"


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


class VerifyError(XbcompileError):
    """A program is wrong; `findings` lists every check that failed, one line each."""

    def __init__(self, findings: list[str]) -> None:
        self.findings = findings
        super().__init__("; ".join(findings))
