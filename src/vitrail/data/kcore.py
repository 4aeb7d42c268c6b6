"""k-core: drop users and items with few events, again and again, until none is left that has too few."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def kcore(users: Int64, items: Int64, *, min_user_events: int = 0, min_item_events: int = 0) -> npt.NDArray[np.bool_]:
    """(E,) which events stay, for events of user codes `users` (E,) and item codes `items` (E,).

    The answer is the one largest set in which every user has at least `min_user_events` events and every item at
    least `min_item_events`; it does not depend on the order of removal.
    """
    alive = np.arange(len(users))
    while len(alive):
        enough = (np.bincount(users[alive]) >= min_user_events)[users[alive]] & (np.bincount(items[alive]) >= min_item_events)[items[alive]]
        if enough.all():
            break
        alive = alive[enough]
    keep = np.zeros(len(users), dtype=bool)
    keep[alive] = True
    return keep
