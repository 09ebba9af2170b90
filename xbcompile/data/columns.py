"""Which of several named arrays or columns are the model's inputs, and which one holds the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbcompile.errors import DataError, elided, quoted

LABELS = "labels"
# What labels are called in files and batches of others.
LABEL_NAMES = (LABELS, "label", "y", "targets", "target")


@dataclass(frozen=True)
class Choice:
    """What named arrays are for.

    Args:
        inputs: the array's name by the model's input.
        labels: name of the array of labels; None: there is none.
    """

    inputs: dict[str, str]
    labels: str | None


def choice_of(
    names: Collection[str], inputs: Sequence[str], optional: Collection[str], labels: str | None, where: str
) -> Choice:
    """Inputs by their names (any name where there is one input), and labels by the name given or one of `LABEL_NAMES`.

    Args:
        names: of the arrays.
        inputs: of the model.
        optional: inputs that may be missing.
        labels: name of the labels; None: found.
        where: where the arrays come from, for messages.

    Raises:
        DataError: two arrays may be the labels, there are none of the name given, or the others are not the model's inputs.
    """
    found = label_name(names, inputs, labels, where)
    rest = [name for name in names if name != found]
    if len(inputs) == len(rest) == 1:
        return Choice({inputs[0]: rest[0]}, found)
    check_names(rest, inputs, optional, where)
    return Choice({name: name for name in rest}, found)


def label_name(names: Collection[str], inputs: Collection[str], labels: str | None, where: str) -> str | None:
    """The name of the labels among others; None where there are none.

    Args:
        names: of arrays or columns.
        inputs: of the model, which are none.
        labels: the name given; None: one of `LABEL_NAMES`.
        where: where they come from, for messages.

    Raises:
        DataError: the name given is none of them or an input's, or several may be the labels.
    """
    if labels is not None:
        if labels not in names or labels in inputs:
            what = "is an input of the model" if labels in inputs else "is not there"
            raise DataError(f"data {quoted(where)}: labels {quoted(labels)}: it {what}; found: {elided(list(names))}")
        return labels
    found = [name for name in names if name in LABEL_NAMES and name not in inputs]
    if len(found) > 1:
        raise DataError(
            f"data {quoted(where)}: {elided(found)} may each be the labels; say which: --labels {found[0]}, in Python "
            f"labels={found[0]!r}, and leave the others out"
        )
    if not found or (len(names) == 1 and found[0] != LABELS):  # a single array is an input
        return None
    return found[0]


def check_names(found: Collection[Any], names: Collection[str], optional: Collection[str], where: str) -> None:
    """Raise DataError where arrays are not the model's inputs.

    Args:
        found: names of the arrays.
        names: of the model's inputs.
        optional: inputs that may be missing.
        where: where the arrays come from, for messages.
    """
    if not set(names) - set(optional) <= set(found) <= set(names):
        raise DataError(
            f"data {quoted(where)} has arrays {elided(sorted(map(str, found)))}; the model's inputs are "
            f"{elided(list(names))}"
        )


def table_arrays(
    columns: Sequence[str],
    values: Sequence[np.ndarray],
    inputs: Sequence[str],
    optional: Collection[str],
    labels: str | None,
    where: str,
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Inputs and labels of a table, a sample in each row.

    The only input takes all columns but that of the labels, in their order; of several inputs each takes the column of its name.

    Args:
        columns: their names.
        values: numbers of each column [samples].
        inputs: of the model.
        optional: inputs that may be missing.
        labels: name of the labels' column; None: found.
        where: where the table comes from, for messages.

    Returns:
        arrays by input name, [samples, columns] or [samples], and the labels [samples] or None.

    Raises:
        DataError: see `choice_of`, or two columns have one name.
    """
    check_columns(columns, where)
    by_name = dict(zip(columns, values, strict=True))
    needed = [name for name in inputs if name not in optional]
    if len(needed) != 1:
        choice = choice_of(columns, inputs, optional, labels, where)
        arrays = {name: by_name[column] for name, column in choice.inputs.items()}
        return arrays, None if choice.labels is None else by_name[choice.labels]
    found = label_name(columns, () if len(columns) > 1 else needed, labels, where)
    features = [by_name[name] for name in columns if name != found]
    if not features:
        raise DataError(f"data {quoted(where)} has no column beside that of the labels, {quoted(found)}")
    return {needed[0]: np.stack(features, axis=1)}, None if found is None else by_name[found]


def check_columns(columns: Sequence[str], where: str) -> None:
    """Raise DataError where two columns have one name.

    Args:
        columns: their names.
        where: where the table comes from, for messages.
    """
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(f"data {quoted(where)} has two columns {quoted(twice[0])}")
