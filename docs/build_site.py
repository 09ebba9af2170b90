"""Build the site of pages, notebooks and the reference into `build/docs`; warnings are errors, and every link is followed.

Links and anchors within the site must lead somewhere; addresses elsewhere are looked at for their form alone, as nothing here
uses a network. A page may load nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SOURCE = Path(__file__).parent
OUTPUT = SOURCE.parent / "build" / "docs"
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
}  # what a browser fetches by itself


@dataclass
class Page(HTMLParser):
    """What a page names, and what it can be entered at.

    Args:
        links: addresses of `a`.
        loaded: addresses of what is fetched with the page.
        anchors: names in it that a link may end with.
    """

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        found = dict(attrs)
        self.anchors |= {str(found[name]) for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        address = found.get(LOADED.get(tag, ""))
        if address:
            self.loaded.append(address)


def read_page(path: Path) -> Page:
    """A page of the site."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def faults(folder: Path) -> tuple[list[str], dict[str, int]]:
    """What is wrong with the links of a site, and how many were followed: within the site, and elsewhere.

    Args:
        folder: all files of the site.
    """
    pages = {path: read_page(path) for path in sorted(folder.resolve().rglob("*.html"))}
    found: list[str] = []
    counts = {"pages": len(pages), "within": 0, "elsewhere": 0}
    for path, page in pages.items():
        name = path.relative_to(folder.resolve()).as_posix()
        for address in page.loaded:
            if urlsplit(address).netloc:
                found.append(f"{name} loads {address} from elsewhere")
        for address in (*page.links, *page.loaded):
            counts["elsewhere" if urlsplit(address).scheme else "within"] += 1
            found += [f"{name}: {address}: {why}" for why in wrong(address, path, pages)]
    return found, counts


def wrong(address: str, path: Path, pages: Mapping[Path, Page]) -> Iterator[str]:
    """Why an address on a page leads nowhere; nothing where it does."""
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto"):
        return
    if parts.scheme or parts.netloc:
        if parts.scheme != "https" or "." not in parts.netloc:
            yield "an address elsewhere must be https://HOST..."
        return
    goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not goal.is_file():
        yield "no such file"
    elif parts.fragment and goal in pages and unquote(parts.fragment) not in pages[goal].anchors:
        yield "no such place on that page"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the site")
    options = parser.parse_args()
    started = time.perf_counter()
    sphinx = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "-j",
        "auto",
    ]
    doctrees = options.output.parent / "docs-doctrees"
    if subprocess.run([*sphinx, "-d", doctrees, SOURCE, options.output]).returncode:
        raise SystemExit("the site was not built")
    found, counts = faults(options.output)
    print(*found, sep="\n", end="\n" * bool(found), file=sys.stderr)
    if found:
        raise SystemExit(f"{len(found)} links are wrong")
    followed = f"{counts['pages']} pages, {counts['within']:,} links within followed, 0 broken; {counts['elsewhere']} elsewhere"
    print(f"written: {options.output / 'index.html'}: {followed}; in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
