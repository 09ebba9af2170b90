"""Named targets: the descriptions shipped here, those of other packages, and files of one's own."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from xbcompile.errors import TargetError
from xbcompile.extensions import Registry
from xbcompile.targets.target import Target

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
    text = os.fspath(name_or_path)
    if text.endswith(".toml"):
        return Target.from_table(_extended(_read_file(Path(text)), text, ()), text)
    if text not in target_names():
        raise TargetError(
            f"unknown target {text!r}; allowed: {', '.join(target_names())}, or the path of a .toml description"
        )
    return Target.from_table(_named_table(text, ()), f"target {text!r}")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetError(
            f"target file {str(path)!r} does not exist; known targets: {', '.join(target_names())}"
        ) from None
    except OSError as error:
        raise TargetError(f"target file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise TargetError(f"target file {str(path)!r} is not valid TOML: {error}") from None


def _named_table(name: str, extending: tuple[str, ...]) -> dict[str, Any]:
    """The whole description of a name in `target_names()`; `extending` are the names that led to it."""
    extension = TARGETS.extensions()[name]
    where = f"target {name!r} of package {extension}"
    try:
        table = tomllib.loads(extension.read_text())
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{where} is not valid TOML: {error}") from None
    if table.get("name") != name:
        raise TargetError(f"{where}: name = {table.get('name')!r}; it must be the registered name, {name!r}")
    return _extended(table, where, (*extending, name))


def _extended(table: dict[str, Any], where: str, extending: tuple[str, ...]) -> dict[str, Any]:
    """The description with what it takes over from the target that it extends."""
    if "extends" not in table:
        return table
    base_name = table.pop("extends")
    if base_name not in target_names():
        raise TargetError(f"{where}: extends = {base_name!r} is unknown; allowed: {', '.join(target_names())}")
    if base_name in extending:
        raise TargetError(f"{where}: targets extend each other in a circle: {', '.join([*extending, base_name])}")
    base = _named_table(base_name, extending)
    quantities = table.pop("quantities", {})
    if not isinstance(quantities, dict):
        raise TargetError(f"{where}: quantities must be a table")
    # What it gives anew has no range of the other's any more.
    ranges = {name: pair for name, pair in base.get("assumed", {}).items() if name not in quantities}
    own = table.pop("assumed", {})
    if not isinstance(own, dict):
        raise TargetError(f"{where}: assumed must be a table, NAME = [low, high]")
    return {**base, **table, "quantities": {**base["quantities"], **quantities}, "assumed": {**ranges, **own}}
