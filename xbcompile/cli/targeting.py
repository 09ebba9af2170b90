"""A target with numbers changed on the command line."""

from __future__ import annotations

from xbcompile.errors import TargetError
from xbcompile.targets import Target, load_target


def changed_target(name: str, settings: list[str] | None) -> Target:
    """The target of this name or path, with `NAME=VALUE` settings of its quantities.

    Raises:
        TargetError: unknown target or quantity, or a value that is no number or out of range.
    """
    target = load_target(name)
    values: dict[str, float] = {}
    for setting in settings or ():
        key, equals, text = setting.partition("=")
        try:
            number = float(text)
        except ValueError:
            number = None
        if not equals or number is None:
            raise TargetError(f"--set {setting}: write --set NAME=VALUE with a number, for example --set rows=128")
        whole = number.is_integer() and isinstance(target.quantities.get(key, {}).get("value"), int)
        values[key] = int(number) if whole else number
    return target.with_quantities("command line", **values) if values else target
