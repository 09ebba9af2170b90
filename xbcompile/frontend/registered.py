"""Rewritings of operators that other packages bring: entry points named `domain.Operator`, or `Operator` for ONNX's own."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from xbcompile.extensions import Extension, Registry
from xbcompile.frontend.rewriter import Replacement, Rewriting
from xbcompile.onnx_graph.domains import OperatorName

GROUP = "xbcompile.rewritings"


def registered_rewritings(taken: Collection[OperatorName]) -> dict[OperatorName, Rewriting]:
    """The rewritings of other packages, each loaded when a model first has its operator.

    Args:
        taken: operators that the compiler lowers or rewrites by itself, and no other package may claim.

    Raises:
        ExtensionError: two packages rewrite one operator.
    """
    own = {f"{domain}.{operator}".removeprefix("."): "xbcompile.frontend.operators" for domain, operator in taken}
    added = Registry("rewriting of operator", GROUP, own).added()
    return {_key(name): partial(_load_and_rewrite, extension) for name, extension in added.items()}


def _key(name: str) -> OperatorName:
    domain, _, operator = name.rpartition(".")
    return domain, operator


def _load_and_rewrite(extension: Extension, replacement: Replacement) -> bool:
    done = extension.load()(replacement)
    if not isinstance(done, bool):
        raise TypeError(f"{extension.where} of {extension.package} gave {done!r}; a rewriting gives True or False")
    return done
