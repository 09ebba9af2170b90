"""The table of operators: said once each, complete, and what everything that asks of operators reads."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import helper

from xbcompile.frontend import grids, lowerings, mac_rules, operators
from xbcompile.frontend.explain import digital_reason
from xbcompile.frontend.macs import macs_of
from xbcompile.frontend.operators import OPERATORS, Operator, operator_of
from xbcompile.frontend.rewritings import (
    attention,
    contraction,
    conv_transpose,
    linear_models,
    microsoft,
    qonnx,
    qonnx_layers,
    quantized,
    recurrent,
)
from xbcompile.onnx_graph.domains import CHANNELS_LAST, MICROSOFT, ONNX_ML, QONNX_DOMAINS

REWRITINGS = (
    attention,
    contraction,
    conv_transpose,
    linear_models,
    microsoft,
    qonnx,
    qonnx_layers,
    quantized,
    recurrent,
)


def node(name: tuple[str, str]) -> onnx.NodeProto:
    return helper.make_node(name[1], ["x"], ["y"], domain=name[0])


def public_functions(module, prefix: str = "") -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        and not isinstance(value, type)
        and name.startswith(prefix)
        and not name.startswith("_")
    }


def used(*fields: str) -> set[str]:
    """Names of the functions in these columns of the table; closures by the name of what makes them."""
    values = [getattr(operator, field) for operator in OPERATORS.values() for field in fields]
    return {value.__qualname__.partition(".")[0] for value in values if value is not None}


def test_no_operator_is_said_twice():
    """A dict would keep the last of two entries without a word, so the source is read."""
    tree = ast.parse(Path(operators.__file__).read_text(encoding="utf-8"))
    (table,) = (
        each.value for each in tree.body if isinstance(each, ast.AnnAssign) and ast.unparse(each.target) == "OPERATORS"
    )
    assert isinstance(table, ast.Dict)
    keys = [ast.unparse(key) for key in table.keys if key is not None]
    keys += [
        ast.unparse(value)
        for value in table.values
        if isinstance(value, ast.Call) and "_of_qonnx" in ast.unparse(value)
    ]
    assert [key for key, count in Counter(keys).items() if count > 1] == []
    assert len(OPERATORS) == sum(len(QONNX_DOMAINS) if "_of_qonnx(" in key else 1 for key in keys)


def test_the_operators_exist():
    """ONNX's are in onnx; those that onnxruntime and QONNX add are in no library's tables."""
    known = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas()}
    assert {name for name in OPERATORS if name[0] in ("", ONNX_ML)} <= known
    assert {domain for domain, _ in OPERATORS} == {"", ONNX_ML, MICROSOFT, CHANNELS_LAST, *QONNX_DOMAINS}


def test_every_function_has_its_entry():
    assert used("lower") == public_functions(lowerings, "lower_")
    assert used("macs") == public_functions(mac_rules)
    assert used("grid") == public_functions(grids)
    rewritings = set().union(*(public_functions(module, "rewrite_") for module in REWRITINGS))
    assert used("rewrite", "standard") == rewritings


def test_entries_make_sense():
    """What can be lowered or counted has a matrix; a reason is that of a node without one."""
    for name, operator in OPERATORS.items():
        if operator.lower or operator.macs:
            assert operator.has_matrix, name
        assert not (operator.reason and (operator.has_matrix or operator.rewrite)), name
        assert operator != Operator(), f"{name}: an operator without an entry has as much"


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.reason])
def test_reasons_come_from_the_table(name):
    assert digital_reason(node(name)) == OPERATORS[name].reason


def test_a_new_entry_is_read_everywhere(monkeypatch):
    entry = Operator("as we like it", macs=lambda node, shape: 7)
    monkeypatch.setattr(operators, "registered_operators", lambda: {**OPERATORS, ("us", "New"): entry})
    assert operator_of(node(("us", "New"))) == entry
    assert digital_reason(node(("us", "New"))) == "as we like it"
    assert macs_of(node(("us", "New")), {}.get) == 7
    assert operator_of(node(("", "New"))) == Operator()


def test_both_names_of_the_domain_of_onnx_are_one():
    assert operator_of(node(("ai.onnx", "Conv"))) is OPERATORS["", "Conv"]
