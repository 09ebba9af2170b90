"""Names that other packages bring: found without loading, loaded where used, clashes and failures with the package named."""

from __future__ import annotations

import sys

import pytest

from tests.support.installed import installed
from xbcompile.errors import ExtensionError
from xbcompile.extensions import Extension, Registry

GROUP = "xbcompile.fruit"
FRUIT = Registry("fruit", GROUP, {"apple": "fractions:Fraction", "plum": "xbcompile.targets:ideal.toml"})


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of importable modules."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_own_names():
    from fractions import Fraction

    with installed(GROUP):
        assert FRUIT.names() == ["apple", "plum"]
        assert FRUIT.load("apple") is Fraction
        assert 'name = "ideal"' in FRUIT.extensions()["plum"].read_text()
        assert FRUIT.added() == {}


def test_names_are_known_before_anything_is_loaded(modules):
    (modules / "lemons.py").write_text("class Lemon: pass")
    with installed(GROUP, ("lemons-package", "lemon", "lemons:Lemon")):
        assert FRUIT.names() == ["apple", "lemon", "plum"]
        assert FRUIT.added() == {"lemon": Extension("fruit", "lemon", "lemons:Lemon", "lemons-package")}
        assert "lemons" not in sys.modules
        assert FRUIT.load("lemon").__name__ == "Lemon"


def test_a_file_inside_a_package(modules):
    (modules / "pears").mkdir()
    (modules / "pears" / "__init__.py").touch()
    (modules / "pears" / "pear.toml").write_text("größe = 3", encoding="utf-8")
    with installed(GROUP, ("pears-package", "pear", "pears:pear.toml"), ("pears-package", "none", "pears:none.toml")):
        assert FRUIT.extensions()["pear"].read_text() == "größe = 3"
        with pytest.raises(
            ExtensionError, match=r"fruit 'none' of package pears-package \(pears:none\.toml\) cannot be"
        ):
            FRUIT.extensions()["none"].read_text()


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (
            [("others", "apple", "others:Apple")],
            "fruit 'apple' comes with both xbcompile (fractions:Fraction) and others (others:Apple); uninstall one of the "
            "packages",
        ),
        (
            [("two", "lime", "two:Lime"), ("one", "lime", "one:Lime")],
            "fruit 'lime' comes with both one (one:Lime) and two (two:Lime); uninstall one of the packages",
        ),
    ],
)
def test_a_clash_names_both_packages(entries, text):
    with installed(GROUP, *entries), pytest.raises(ExtensionError) as caught:
        FRUIT.names()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("source", "attribute", "text"),
    [
        (None, "Fig", "ModuleNotFoundError: No module named 'figs'; mend or uninstall figs-package"),
        ("", "Fig", "AttributeError: module 'figs' has no attribute 'Fig'; mend or uninstall figs-package"),
        ("import no_such_module", "Fig", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "Fig", "ZeroDivisionError: division by zero"),
        ("class", "Fig", "SyntaxError: invalid syntax"),
    ],
)
def test_what_cannot_be_loaded_names_its_package(modules, monkeypatch, source, attribute, text):
    monkeypatch.delitem(sys.modules, "figs", raising=False)
    if source is not None:
        (modules / "figs.py").write_text(source)
    with installed(GROUP, ("figs-package", "fig", f"figs:{attribute}")), pytest.raises(ExtensionError) as caught:
        FRUIT.load("fig")
    assert str(caught.value).startswith(
        f"fruit 'fig' of package figs-package (figs:{attribute}) cannot be loaded: {text}"
    )
    monkeypatch.delitem(sys.modules, "figs", raising=False)


def test_our_own_fault_is_no_user_error():
    with pytest.raises(ModuleNotFoundError):
        Registry("fruit", GROUP, {"pit": "xbcompile.no_such_module:Pit"}).load("pit")
    with pytest.raises(FileNotFoundError):
        Registry("fruit", GROUP, {"pit": "xbcompile.targets:pit.toml"}).extensions()["pit"].read_text()
