"""What the arrays of a simulated chip are made of, as long as there is room for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np

ROOM_BYTES = 1 << 26


class ArrayMemory:
    """Remembers what was drawn, which is the same whenever it is drawn again; what was asked for longest ago goes first.

    Args:
        room_bytes: all that is remembered takes no more, but for the last one.
    """

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._room = room_bytes
        self._held: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, draw: Callable[[], np.ndarray]) -> np.ndarray:
        """What is remembered by a key, drawn where it is not.

        Args:
            key: what it is, and of which array.
            draw: draws it; nobody changes the result.
        """
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        value = draw()
        with self._lock:
            if key not in self._held:
                self._held[key] = value
                self._room -= value.nbytes
            while self._room < 0 and len(self._held) > 1:
                self._room += self._held.popitem(last=False)[1].nbytes
        return value
