"""Erasing a user from a store that may be in use."""

from __future__ import annotations

import time

from vitrail.errors import DataError
from vitrail.serve.store.base import Forgotten, Store
from vitrail.serve.writer import FLUSH


def forget(store: Store, user: str, wait: float = 2 * FLUSH) -> Forgotten:
    """Erase `user` twice: what a running service had not yet written the first time (it waits `wait` seconds) goes the second time.

    Raises DataError for an empty id, ResourceError where the store cannot do it.
    """
    if not user or "\x00" in user:
        raise DataError("Say which user is to be forgotten: an id of at least one character.")
    first = store.forget(user)
    time.sleep(wait)
    again = store.forget(user)
    return Forgotten(first.events + again.events, first.requests + again.requests)
