"""What can be extended, by name: passes, model families, named targets and rewritings of operators.

The project's own are literal tables of `"name": "module:attribute"`. Other packages add to them by entry points of four groups,
and nothing outside the package changes:

    [project.entry-points."xbcompile.passes"]
    prune = "my_package.prune:Prune"                  # a subclass of NetworkPass or of a kind of DevicePass
    [project.entry-points."xbcompile.families"]
    drifting = "my_package.drifting:DriftingParameters"  # a subclass of ArrayParameters
    [project.entry-points."xbcompile.targets"]
    my-chip = "my_package:my_chip.toml"               # a description: a file inside the package
    [project.entry-points."xbcompile.rewritings"]
    "my.domain.Fancy" = "my_package.fancy:rewrite"    # domain and operator; the operator alone for ONNX's own

Names alone are read at first; what stands behind a name is loaded where it is used. A name that two packages bring is an error
that names both, as is one that cannot be loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from importlib.metadata import entry_points
from typing import Any, NoReturn

from xbcompile.errors import ExtensionError

OWN_PACKAGE = "xbcompile"


@dataclass(frozen=True)
class Extension:
    """One name and what stands behind it.

    Args:
        kind: what it is, for messages: "pass", "target" ...
        name: the name that a user writes.
        where: "module:attribute", or "package:file" for a file inside a package.
        package: the installed distribution that brings it.
    """

    kind: str
    name: str
    where: str
    package: str

    def __str__(self) -> str:
        return f"{self.package} ({self.where})"

    def load(self) -> Any:
        """The object that `where` names.

        Raises:
            ExtensionError: another package does not bring what it names, or its module cannot be imported.
        """
        module, _, attribute = self.where.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except Exception as error:  # whatever a module of others raises while it is imported
            self._fail(error)

    def read_text(self) -> str:
        """The content of the file that `where` names, UTF-8.

        Raises:
            ExtensionError: another package does not bring the file that it names, or its bytes are no text.
        """
        package, _, file = self.where.partition(":")
        try:
            return (resources.files(package) / file).read_text(encoding="utf-8")
        except Exception as error:  # resources of zipped and namespace packages raise errors of many kinds
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        if self.package == OWN_PACKAGE:  # our own fault
            raise error
        raise ExtensionError(
            f"{self.kind} {self.name!r} of package {self} cannot be loaded: {type(error).__name__}: {error}; "
            f"mend or uninstall {self.package}"
        ) from error


@dataclass(frozen=True)
class Registry:
    """The names of one kind: the project's own and those of other packages.

    Args:
        kind: what is registered, in the singular, for messages.
        group: the group of entry points by which other packages add to it.
        own: the project's own, name -> "module:attribute" or "package:file".
    """

    kind: str
    group: str
    own: Mapping[str, str]

    def extensions(self) -> dict[str, Extension]:
        """All by name, the project's own first.

        Raises:
            ExtensionError: two packages bring one name.
        """
        found = {name: Extension(self.kind, name, where, OWN_PACKAGE) for name, where in self.own.items()}
        for name, where, package in _installed(self.group):
            extension = Extension(self.kind, name, where, package)
            if name in found:
                raise ExtensionError(
                    f"{self.kind} {name!r} comes with both {found[name]} and {extension}; uninstall one of the packages"
                )
            found[name] = extension
        return found

    def names(self) -> list[str]:
        """All names, in alphabetical order."""
        return sorted(self.extensions())

    def added(self) -> dict[str, Extension]:
        """What other packages bring."""
        return {name: each for name, each in self.extensions().items() if name not in self.own}

    def load(self, name: str) -> Any:
        """The object of a name in `names()`; see `Extension.load`.

        Args:
            name: one of `names()`.
        """
        return self.extensions()[name].load()


@cache
def _installed(group: str) -> tuple[tuple[str, str, str], ...]:
    """Name, value and distribution of every entry point of a group, in an order that does not depend on the path."""
    entries = entry_points(group=group)
    return tuple(sorted((e.name, e.value, e.module if e.dist is None else e.dist.name) for e in entries))
