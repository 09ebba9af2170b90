"""How much is done, where the caller wants to see it: bars of tqdm, which notebooks and terminals show alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Told what is done now, and which part (0 to 1) of all is done; None: nobody knows.
Progress = Callable[[str, float | None], None]
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, left {remaining}"
_UNKNOWN_FORMAT = "{desc}, {elapsed}"


@contextmanager
def shown_progress(text: str, progress: bool | Callable[[str, float], None] | None) -> Iterator[Progress]:
    """What a long call tells of its progress.

    Args:
        text: what is done.
        progress: True: a bar with the time that is left, on the error output, or in a notebook a widget where ipywidgets is
            installed; a function: it is told; else nothing is shown, and tqdm is not loaded.

    Yields:
        a function of what is done now, and the part of all that is done.
    """
    if callable(progress):
        given = progress
        yield lambda now, part: given(now, 0.0 if part is None else part)
        return
    if not progress:
        yield lambda now, part: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets; the bar is text then
        from tqdm.auto import tqdm

        bar = tqdm(total=1.0, desc=text, leave=False, bar_format=_FORMAT)
    with bar:

        def tell(now: str, part: float | None) -> None:
            bar.bar_format = _UNKNOWN_FORMAT if part is None else _FORMAT
            bar.set_description_str(f"{text}: {now}" if now else text, refresh=False)
            bar.update(max((part or 0.0) - bar.n, 0.0))
            bar.refresh()

        yield tell
