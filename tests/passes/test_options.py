"""Options as text: every type that a field can have, read back to the same value, and each error by its text."""

# No `from __future__ import annotations` here: annotations are types and not text.

from dataclasses import dataclass, make_dataclass
from typing import ClassVar, Literal, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.installed import installed
from xbcompile.errors import PassError, PipelineError
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.contract import NetworkPass
from xbcompile.passes.options import OptionType, option_types
from xbcompile.passes.pipeline import parse_pipeline, print_pipeline


@dataclass(frozen=True)
class Everything(NetworkPass):
    """A pass with an option of each type."""

    name: ClassVar[str] = "everything"
    count: int = 3
    share: float = 0.5
    exact: bool = False
    layer: str = ""
    limit: int | None = None
    low: Optional[float] = 1.0  # noqa: UP045  # the older spelling must be understood too
    dither: bool | None = None
    tag: str | None = "none"
    per: Literal["column", "matrix"] = "column"
    order: Literal[1, 2, 4] | None = 1


def registered_everything():
    return installed("xbcompile.passes", ("package", "everything", f"{__name__}:Everything"))


numbers = st.floats(allow_nan=False)
everything = st.builds(
    Everything,
    count=st.integers(),
    share=numbers,
    exact=st.booleans(),
    layer=st.text(),
    limit=st.none() | st.integers(),
    low=st.none() | numbers,
    dither=st.none() | st.booleans(),
    tag=st.none() | st.just("none") | st.text(),
    per=st.sampled_from(["column", "matrix"]),
    order=st.none() | st.sampled_from([1, 2, 4]),
)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(everything, max_size=3))
def test_what_is_printed_is_read_back(passes):
    with registered_everything():
        text = print_pipeline(passes)
        found = parse_pipeline(text)
    assert found == tuple(passes)
    assert [tuple(map(type, vars(each).values())) for each in found] == [
        tuple(map(type, vars(each).values())) for each in passes
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("count=7 share=7 exact=1 dither=0", {"count": 7, "share": 7.0, "exact": True, "dither": False}),
        ("exact=true dither=false limit=none low=none", {"exact": True, "dither": False, "limit": None, "low": None}),
        ('layer="a b{}, \\"c\\"" per=matrix order=4', {"layer": 'a b{}, "c"', "per": "matrix", "order": 4}),
        ("tag=none layer=none order=none", {"tag": None, "layer": "none", "order": None}),
        ('tag="none" layer=a=b/c.0:1', {"tag": "none", "layer": "a=b/c.0:1"}),
    ],
)
def test_what_text_means(text, values):
    with registered_everything():
        (found,) = parse_pipeline(f"everything{{{text}}}")
    assert found == Everything(**values)
    assert all(type(getattr(found, name)) is type(value) for name, value in values.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exact=yes", "pass everything: exact=yes is not true or false"),
        ("exact=none", "pass everything: exact=none is not true or false"),
        ("count=1.0", "pass everything: count=1.0 is not a whole number"),
        ("limit=many", "pass everything: limit=many is not a whole number"),
        ("low=", "option 'low' has no value"),
        ("per=row", "pass everything: per=row is unknown; allowed: column, matrix"),
        ("order=3", "pass everything: order=3 is unknown; allowed: 1, 2, 4"),
        ("order=first", "pass everything: order=first is not a whole number"),
        ('layer="a"b', "is not text"),
    ],
)
def test_errors(text, message):
    with registered_everything(), pytest.raises(PipelineError) as caught:
        parse_pipeline(f"everything{{{text}}}")
    assert message in str(caught.value)


@dataclass(frozen=True)
class Demanding(NetworkPass):
    """An option without a default."""

    name: ClassVar[str] = "demanding"
    keep: int


def test_an_option_without_a_default_must_be_given():
    with installed("xbcompile.passes", ("package", "demanding", f"{__name__}:Demanding")):
        assert print_pipeline(parse_pipeline("demanding{keep=2}")) == "demanding{keep=2}"
        with pytest.raises(PipelineError, match=r"option 'keep' must be given; write demanding\{keep=value\}"):
            parse_pipeline("demanding")


@pytest.mark.parametrize(
    "declared", [list, list[int], int | float, bytes, Literal[1, "a"], None, complex | None, "int | str"], ids=str
)
def test_a_type_that_no_option_can_have_is_named(declared):
    with pytest.raises(TypeError, match=r"Odd\.value is declared as .*; an option is an int, float"):
        option_types(make_dataclass("Odd", [("value", declared)]))


def test_a_class_that_is_no_dataclass():
    with pytest.raises(TypeError, match="NetworkPass is not a dataclass; the fields of a pass are its options"):
        option_types(NetworkPass)


def test_types_written_as_text_are_understood():
    assert option_types(make_dataclass("Late", [("value", "int | None")])) == {"value": OptionType(int, True)}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"count": np.int64(3), "limit": np.uint8(4)}, {"count": 3, "limit": 4}),
        ({"share": 1, "low": np.float32(0.5)}, {"share": 1.0, "low": 0.5}),
        ({"exact": np.True_, "dither": None}, {"exact": True, "dither": None}),
        ({"layer": np.str_("a"), "order": np.int8(4)}, {"layer": "a", "order": 4}),
    ],
)
def test_values_from_python_are_kept_as_pythons_own(given, kept):
    made = Everything(**given)
    assert made == Everything(**kept)
    assert {name: type(getattr(made, name)) for name in given} == {name: type(value) for name, value in kept.items()}


WRONG = {
    int: (2.0, "2", True, [2], 1j),
    float: ("0.5", True, [0.5], 10**400),
    bool: (1, "true", 0.0),
    str: (1, b"a", None),
}


@pytest.mark.parametrize("name", pass_names())
def test_every_option_of_every_pass_refuses_what_it_is_not(name):
    made = load_pass(name)
    for option, declared in option_types(made).items():
        for value in (*WRONG[declared.kind], *([] if declared.optional else [None])):
            if value is None and declared.optional:
                continue
            with pytest.raises(PassError, match=f"{option}=.* is not "):
                made(**{option: value})
        if declared.kind is int:
            for value in (-1, 2**31, 2**70, 10**5000):
                with pytest.raises(PassError, match=r"is out of range; allowed|give one of"):
                    made(**{option: value})


def test_a_choice_that_is_none():
    with pytest.raises(PassError, match="per='row' is unknown; allowed: column, matrix"):
        Everything(per="row")
