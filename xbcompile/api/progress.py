"""How much is done, where the caller wants to see it: bars of tqdm, which notebooks and terminals show alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, str], None]


@contextmanager
def progress_bar(text: str, total: int | None, shown: bool) -> Iterator[Progress]:
    """A bar with the time that is left on the error output, or in a notebook as a widget where ipywidgets is installed.

    Args:
        text: what is done.
        total: when all is done; None: not known.
        shown: false: nothing is shown, and tqdm is not loaded.

    Yields:
        a function of how much is done, and what is done now.
    """
    if not shown:
        yield lambda done, now: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets; the bar is text then
        from tqdm.auto import tqdm

        bar = tqdm(total=total, desc=text, leave=False)
    with bar:

        def tell(done: int, now: str) -> None:
            bar.set_description(now or text, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        yield tell
