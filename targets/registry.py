"""Named targets: the descriptions shipped here, those of other packages, and files of one's own."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from xbcompile.errors import TargetError, shown
from xbcompile.extensions import Registry
from xbcompile.targets.target import Target

# Of a description; the time that reading tables within tables takes grows with the square of a line's length.
MOST_BYTES, MOST_LINE_BYTES = 1 << 17, 4_000

TARGETS = Registry(
    kind="target",
    group="xbcompile.targets",
    own={path.stem: f"xbcompile.targets:{path.name}" for path in sorted(Path(__file__).parent.glob("*.toml"))},
)


def target_names() -> list[str]:
    """Names of all targets, shipped and registered."""
    return TARGETS.names()


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """Load a target by name, or a description from a file whose name ends in .toml.

    A description may start with `extends = "mram64"` and then give only what differs.

    Args:
        name_or_path: name of a shipped target or of another package's, or path of a .toml description.

    Raises:
        TargetError: no such target or file, not TOML, or a faulty description.
        ExtensionError: a name that two packages bring, or a description that its package does not hold.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TargetError(f"target = {shown(name_or_path)} is no name or path of a target, nor a Target")
    text = os.fsdecode(name_or_path)
    if text.endswith(".toml"):
        return Target.from_table(_extended(_read_file(Path(text)), text, ()), text)
    if text not in target_names():
        raise TargetError(
            f"unknown target {shown(text)}; allowed: {', '.join(target_names())}, or the path of a .toml description"
        )
    return Target.from_table(_named_table(text, ()), f"target {text!r}")


def _read_file(path: Path) -> dict[str, Any]:
    """The table of a description, in bounded time and memory, whatever the file."""
    where = f"target file {str(path)!r}"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder cannot be opened
            raise TargetError(f"{where} is no regular file, but a device, a pipe or a socket; give a file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise TargetError(f"{where} does not exist; known targets: {', '.join(target_names())}") from None
    except OSError as error:
        raise TargetError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a path with a NUL, or that the file system cannot have
        raise TargetError(f"{where} cannot be read: {error}") from None
    if len(content) > MOST_BYTES:
        raise TargetError(f"{where} has more than {MOST_BYTES:,} bytes, which no description needs")
    longest = max(map(len, content.split(b"\n")))
    if longest > MOST_LINE_BYTES:
        raise TargetError(f"{where} is not valid TOML: a line of {longest:,} bytes; allowed: {MOST_LINE_BYTES:,}")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise TargetError(f"{where} is not valid TOML: {error}") from None
    except RecursionError:
        raise TargetError(f"{where} is not valid TOML: arrays or tables within each other go too deep") from None


def _named_table(name: str, extending: tuple[str, ...]) -> dict[str, Any]:
    """The whole description of a name in `target_names()`; `extending` are the names that led to it."""
    extension = TARGETS.extensions()[name]
    where = f"target {name!r} of package {extension}"
    try:
        table = tomllib.loads(extension.read_text())
    except ValueError as error:
        raise TargetError(f"{where} is not valid TOML: {error}") from None
    if table.get("name") != name:
        raise TargetError(f"{where}: name = {shown(table.get('name'))}; it must be the registered name, {name!r}")
    return _extended(table, where, (*extending, name))


def _extended(table: dict[str, Any], where: str, extending: tuple[str, ...]) -> dict[str, Any]:
    """The description with what it takes over from the target that it extends."""
    if "extends" not in table:
        return table
    base_name = table.pop("extends")
    if base_name not in target_names():
        raise TargetError(f"{where}: extends = {shown(base_name)} is unknown; allowed: {', '.join(target_names())}")
    if base_name in extending:
        raise TargetError(f"{where}: targets extend each other in a circle: {', '.join([*extending, base_name])}")
    base = _named_table(base_name, extending)
    given, taken = _parts(table, where), _parts(base, f"target {base_name!r}")
    # What it gives anew has no range of the other's any more.
    ranges = {name: pair for name, pair in taken["assumed"].items() if name not in given["quantities"]}
    quantities = {**taken["quantities"], **given["quantities"]}
    return {**base, **table, "quantities": quantities, "assumed": {**ranges, **given["assumed"]}}


def _parts(table: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The tables within a description; empty where it has none."""
    parts = {"quantities": table.get("quantities", {}), "assumed": table.get("assumed", {})}
    for key, form in (("quantities", ""), ("assumed", ", NAME = [low, high]")):
        if not isinstance(parts[key], dict):
            raise TargetError(f"{where}: {key} must be a table{form}")
    return parts
