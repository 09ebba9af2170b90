"""The glossary: in order, without doubles, and its page as it is written."""

from __future__ import annotations

from pathlib import Path

from xbcompile.report.glossary import GLOSSARY, found_terms, glossary_page


def test_words_are_in_order_and_once():
    words = [term.word.lower() for term in GLOSSARY]
    assert words == sorted(set(words))


def test_the_words_of_the_tables_are_there():
    for word in ("weight image", "area bound", "recycled", "update", "LSB", "tile", "use"):
        assert found_terms(word)[0].meaning


def test_words_before_meanings():
    assert [term.word for term in found_terms("TILE")] == ["tile"]
    assert found_terms("") == list(GLOSSARY)
    assert {term.word for term in found_terms("onnxruntime")} == {"digital", "software accuracy"}
    assert found_terms("xylophone") == []


def test_the_page_is_the_glossary():
    page = Path(__file__).parents[2] / "docs" / "glossary.md"
    assert page.read_text(encoding="utf-8") == glossary_page()
