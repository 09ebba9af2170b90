"""A target with numbers changed on the command line."""

from __future__ import annotations

from xbcompile.errors import TargetError, written
from xbcompile.targets import Target, load_target

_FLAGS = {"true": True, "false": False}


def changed_target(given: str | Target, settings: list[str] | None) -> Target:
    """The target, or that of this name or path, with `NAME=VALUE` settings of its quantities.

    Raises:
        TargetError: unknown target or quantity, or a value that is no number or out of range.
    """
    target = given if isinstance(given, Target) else load_target(given)
    values: dict[str, float] = {}
    for name, value in map(_parse, settings or ()):
        if name in values and values[name] != value:
            raise TargetError(
                f"--set {written(name)} is given twice, as {values[name]:g} and {value:g}; give one value"
            )
        values[name] = value
    return target.with_quantities("command line", **values) if values else target


def _parse(setting: str) -> tuple[str, float]:
    name, equals, text = setting.partition("=")
    if equals and text in _FLAGS:
        return name, _FLAGS[text]
    try:
        return name, float(text)
    except ValueError:
        raise TargetError(
            f"--set {written(setting)}: write --set NAME=VALUE with a number, for example --set rows=128, or true or false"
        ) from None
