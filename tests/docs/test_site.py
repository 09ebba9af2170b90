"""Links of the built site: what leads nowhere is found, what leads somewhere is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.build_site import faults

PAGE = '<html><head>{head}</head><body><h1 id="top">x</h1>{body}</body></html>'


def site(folder: Path, body: str, head: str = "") -> tuple[list[str], dict[str, int]]:
    (folder / "below").mkdir()
    (folder / "index.html").write_text(PAGE.format(head=head, body=body))
    (folder / "below" / "other.html").write_text(PAGE.format(head="", body='<a href="../index.html#top">up</a>'))
    (folder / "a b.txt").write_text("x")
    return faults(folder)


def test_links_that_lead_somewhere(tmp_path: Path) -> None:
    links = ("#top", "below/other.html", "below/other.html#top", "a%20b.txt", "https://example.org/x", "mailto:a@b.org")
    found, counts = site(tmp_path, "".join(f'<a href="{link}">x</a>' for link in links))
    assert found == []
    assert counts == {"pages": 2, "within": 5, "elsewhere": 2}


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("nowhere.html", "no such file"),
        ("below", "no such file"),
        ("#nowhere", "no such place"),
        ("below/other.html#nowhere", "no such place"),
        ("http://example.org", "must be https"),
        ("https://local", "must be https"),
        ("//example.org/x", "must be https"),
        ("file:///etc/passwd", "must be https"),
    ],
)
def test_links_that_lead_nowhere(tmp_path: Path, link: str, why: str) -> None:
    found, _ = site(tmp_path, f'<a href="{link}">x</a>')
    assert len(found) == 1
    assert found[0].startswith(f"index.html: {link}: ")
    assert why in found[0]


@pytest.mark.parametrize(
    "head",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example.org/css">',
        '<img src="//example.org/x.png">',
    ],
)
def test_a_page_loads_nothing_from_elsewhere(tmp_path: Path, head: str) -> None:
    found, _ = site(tmp_path, "", head)
    assert any("loads" in each and "from elsewhere" in each for each in found)
