"""A boundary whose attempts end in every way that they can."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hypothesis import strategies as st

from xbcompile.errors import DataError

examples = st.just("dies")


def attempt(how: str, _folder: Path) -> None:
    """End as `how` says."""
    match how:
        case "result":
            return
        case "refused":
            raise DataError("data file 'a.npy' holds nothing")
        case "mute":
            raise DataError("no")
        case "raises":
            raise IndexError("list index out of range")
        case "late":
            while True:
                pass
        case "waits":
            time.sleep(60)
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
