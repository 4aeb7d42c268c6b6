"""What people do in the simulated shop: one block of users at a time, everything in a block vectorised.

Letters: B users of the block, K interests a user, S sessions, E events, M items shown at once, N items, C categories, D latent factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vitrail.data import simulate_words as words
from vitrail.data.simulate_catalogue import START, Catalogue, category_of, generator, interest_of

if TYPE_CHECKING:
    from vitrail.data.simulate import SimulatorSettings

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BLOCK = 1024
"""Users drawn together. Part of the random stream: another value gives another shop."""
PIECE = 8192
"""Events whose slates are held at once: bounds the memory a block needs."""
SHOWN = 20
"""Items shown at once, M: half of them from the whole shop, half from the category the person came for."""
SHARPNESS = 4.0
"""How strongly a match of vectors decides a choice."""
APPEAL = 0.15
"""What a unit of log appeal adds to the utility."""
PRICE = 0.4
"""What a standard deviation between a price and the person's price level takes from the utility."""
SESSION_ENDS = 0.3
"""Chance that an event is the last of its session."""
STAYS = 0.85
"""Chance that an event follows the interest its session began with."""
FOND = 0.1
"""Chance that a person who meets an old choice again takes it again."""
DAY = 86_400
EVENTS = ("view", "cart", "buy")
HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 11, 13, 12, 10, 9, 10, 12, 14, 17, 20, 18, 11, 5], dtype=np.float64)
"""Activity by hour of the day."""
WEEKDAYS = np.array([0.95, 0.9, 0.9, 0.95, 1.0, 1.25, 1.3])
"""Activity by weekday, Monday first."""


@dataclass(frozen=True)
class People:
    """Attributes of all users, in code order."""

    age: Int64
    country: Int64
    events: Int64
    """(U,) events of each user"""
    tastes_by_age: Float64
    """(ages, C) added to the log chance of an interest's category"""
    tastes_by_country: Float64


def make_people(settings: SimulatorSettings, categories: int) -> People:
    """Draw age band, country and number of events of every user; the numbers add up to settings.events exactly."""
    rng = generator(settings.seed, 3)
    activity = np.cumsum(rng.lognormal(0.0, settings.activity_spread, size=settings.users))
    least = 1 if settings.events >= settings.users else 0
    spare = settings.events - least * settings.users
    ends = np.rint(activity / activity[-1] * spare).astype(np.int64)
    return People(
        rng.choice(len(words.AGES), size=settings.users, p=[0.16, 0.27, 0.23, 0.22, 0.12]),
        rng.choice(len(words.COUNTRIES), size=settings.users, p=[0.07, 0.07, 0.28, 0.13, 0.17, 0.13, 0.07, 0.08]),
        least + np.diff(ends, prepend=0),
        rng.normal(0.0, 0.6, size=(len(words.AGES), categories)),
        rng.normal(0.0, 0.4, size=(len(words.COUNTRIES), categories)),
    )


class Shelf:
    """Draws shown items: in proportion to appeal ** exposure_bias x season of the category, among what is released."""

    def __init__(self, catalogue: Catalogue, exposure_bias: float) -> None:
        released = np.maximum(catalogue.released, 0)
        days, categories = catalogue.season.shape
        # Sorted by category and release, what is on offer in a category on a day is one stretch: a draw is exact, without rejection.
        self.order = np.lexsort([released, catalogue.category])
        key = (catalogue.category * days + released)[self.order]
        grid = np.arange(categories) * days
        self.first = np.searchsorted(key, grid)
        self.last = np.searchsorted(key, grid + np.arange(days)[:, None], side="right")
        self.mass = np.concatenate([[0.0], np.cumsum(catalogue.appeal[self.order] ** exposure_bias)])
        self.offered = self.mass[self.last] - self.mass[self.first]
        share = self.offered * catalogue.season
        share = np.cumsum(share / share.sum(axis=1, keepdims=True), axis=1)
        share[:, -1] = 1.0
        self.ladder = (share + np.arange(days)[:, None]).ravel()
        self.categories = categories

    def open(self, days: Int64, categories: Int64) -> npt.NDArray[np.bool_]:
        """(E,) whether a category offers anything on a day."""
        return self.last[days, categories] > self.first[categories]

    def any(self, rng: np.random.Generator, days: Int64, count: int) -> Int64:
        """(E, count) items from the whole shop on each day (E,)."""
        rung = np.searchsorted(self.ladder, days[:, None] + rng.random((len(days), count)), side="right")
        return self.of(rng, days, np.minimum(rung - days[:, None] * self.categories, self.categories - 1))

    def of(self, rng: np.random.Generator, days: Int64, categories: Int64) -> Int64:
        """(E, count) items, one from each of `categories` (E, count), as offered on each day (E,)."""
        first, last = self.first[categories], self.last[days[:, None], categories]
        low = self.mass[first]
        where = np.searchsorted(self.mass, low + rng.random(categories.shape) * (self.mass[last] - low), side="right") - 1
        return self.order[np.clip(where, first, np.maximum(last - 1, first))]


@dataclass(frozen=True)
class Block:
    """The events of one block of users, sorted by user and time, and the truth behind them."""

    users: Int64
    """(E,) user codes"""
    items: Int64
    """(E,)"""
    seconds: Int64
    """(E,) since the first day"""
    event: Int64
    """(E,) place in EVENTS"""
    interests: Int64
    """(B, K, 2) interest codes before and after `change`"""
    weights: Float64
    """(B, K)"""
    change: Int64
    """(B, K) second at which the interest is replaced; the end of the time span where it never is"""
    price_level: Float32
    """(B,)"""
    old: Int64
    """(B, L) interests of long ago; none where nothing of long ago comes back"""
    long_range: float
    """share of visits that return to them"""


class Crowd:
    """Draws blocks of users. Each block has generators of its own, so blocks can be drawn in any order."""

    def __init__(self, settings: SimulatorSettings, catalogue: Catalogue, people: People) -> None:
        self.settings, self.catalogue, self.people = settings, catalogue, people
        self.shelf = Shelf(catalogue, settings.exposure_bias)
        self.logits = np.full(catalogue.n_categories, -np.inf)
        sizes = np.bincount(catalogue.category[~catalogue.cold if (~catalogue.cold).any() else slice(None)], minlength=catalogue.n_categories)
        self.logits[sizes > 0] = np.log(sizes[sizes > 0])
        weekday = (np.arange(settings.days) + START.weekday()) % 7
        yearly = 1 + 0.3 * np.tanh(settings.season_strength) * np.cos(2 * np.pi * (np.arange(settings.days) - 345) / 365.25)
        self.rhythm = np.concatenate([[0.0], np.cumsum(WEEKDAYS[weekday] * yearly)])
        self.hours = np.concatenate([[0.0], np.cumsum(HOURS / HOURS.sum())])
        self.end = settings.days * DAY

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.settings.users // BLOCK)

    def block(self, number: int) -> Block:
        """Everything that the users [number x BLOCK, ...) are and do."""
        rng = generator(self.settings.seed, 4, number)
        codes = np.arange(number * BLOCK, min((number + 1) * BLOCK, self.settings.users))
        interests, weights, change, level = self._tastes(rng, codes)
        local, session, seconds = self._visits(rng, codes)
        days = np.minimum(seconds // DAY, self.settings.days - 1)
        active = self._active(rng, local, session, seconds, days, interests, weights, change)
        old = np.empty((len(codes), 0), dtype=np.int64)
        if self.settings.long_range:
            old, active = self._returns(generator(self.settings.seed, 5, number), len(codes), local, session, active)
        items = self._choices(rng, local, days, active, level)
        utility = np.einsum("ed,ed->e", self.catalogue.vectors[items], self.catalogue.interests[active])
        # Interest that matches well is bought more often; of what people look at, about one in ten is bought.
        depth = rng.random(len(items)) * np.exp(-0.8 * (utility - 1.2))
        event = (depth < 0.22).astype(np.int64) + (depth < 0.11)
        return Block(codes[local], items, seconds, event, interests, weights, change, level, old, self.settings.long_range)

    def _tastes(self, rng: np.random.Generator, codes: Int64) -> tuple[Int64, Float64, Int64, Float32]:
        """interests (B, K, 2), weights (B, K), change (B, K), price level (B,)."""
        shape = (len(codes), self.settings.interests_per_user, 2)
        chance = self.logits + self.people.tastes_by_age[self.people.age[codes]] + self.people.tastes_by_country[self.people.country[codes]]
        chance = np.exp(chance - chance.max(axis=1, keepdims=True))
        ladder = (np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1) + np.arange(len(codes))[:, None]).ravel()
        rows = np.arange(len(codes))[:, None, None]
        category = np.searchsorted(ladder, rows + rng.random(shape) * (1 - 1e-9), side="right") - rows * len(self.logits)
        subcategory = rng.integers(words.SUBCATEGORIES, size=shape)
        favourite = rng.integers(len(words.COLOURS), size=(len(codes), 1, 1))
        colour = np.where(rng.random(shape) < 0.6, favourite, rng.integers(len(words.COLOURS), size=shape))
        drifts = rng.random(shape[:2]) < self.settings.drift
        change = np.where(drifts, (rng.uniform(0.15, 0.9, size=shape[:2]) * self.end).astype(np.int64), self.end)
        weights = rng.dirichlet(np.full(shape[1], 2.0), size=len(codes))
        return interest_of(category, subcategory, colour), weights, change, rng.normal(size=len(codes)).astype(np.float32)

    def _visits(self, rng: np.random.Generator, codes: Int64) -> tuple[Int64, Int64, Int64]:
        """local user (E,), session number (E,) in the block, seconds (E,); sorted by user and time."""
        counts = self.people.events[codes]
        local = np.repeat(np.arange(len(codes)), counts)
        total = len(local)
        begins = np.zeros(total, dtype=bool)
        begins[(np.cumsum(counts) - counts)[counts > 0]] = True
        begins |= rng.random(total) < SESSION_ENDS
        owner = local[begins]
        session = np.cumsum(begins) - 1
        joined = np.clip(rng.uniform(-0.4, 0.8, size=len(codes)), 0, None)
        left = np.minimum(joined + 0.25 + 0.75 * rng.random(len(codes)), 1.0)
        span = self.rhythm[-1]
        where = span * (joined[owner] + rng.random(len(owner)) * (left - joined)[owner])
        day = np.interp(where, self.rhythm, np.arange(len(self.rhythm), dtype=np.float64)).astype(np.int64)
        day = np.minimum(day, self.settings.days - 1)
        hour = np.interp(rng.random(len(owner)), self.hours, np.arange(25.0))
        start = day * DAY + (hour * 3600).astype(np.int64)
        start = start[np.lexsort([start, owner])]
        gap = np.where(begins, 0, 5 + rng.lognormal(4.0, 1.0, size=total)).astype(np.int64)
        passed = np.cumsum(gap)
        seconds = np.minimum(start[session] + passed - passed[begins][session], self.end - 1)
        order = np.lexsort([seconds, local])
        return local, session[order], seconds[order]

    def _active(
        self, rng: np.random.Generator, local: Int64, session: Int64, seconds: Int64, days: Int64, interests: Int64, weights: Float64, change: Int64
    ) -> Int64:
        """(E,) the interest each event follows: drawn for the session by weight x season, now and then afresh."""
        if len(local) == 0:
            return local
        now = np.where(seconds[:, None] < change[local], interests[local, :, 0], interests[local, :, 1])
        pull = weights[local] * self.catalogue.season[days[:, None], category_of(now)]
        pull = np.cumsum(pull, axis=1) / pull.sum(axis=1, keepdims=True)
        stays = rng.random(len(local)) < STAYS
        draw = np.where(stays, rng.random(session.max() + 1)[session], rng.random(len(local)))
        chosen = np.minimum((draw[:, None] >= pull).sum(axis=1), pull.shape[1] - 1)
        return now[np.arange(len(local)), chosen]

    def _returns(self, rng: np.random.Generator, users: int, local: Int64, session: Int64, active: Int64) -> tuple[Int64, Int64]:
        """(B, L) interests of long ago, and the interest (E,) of each event: in the first half of a person's events these one after another, in the second now
        and then one of them, for a session."""
        events, count = np.bincount(local, minlength=users), self.settings.old_interests
        shape = (users, count)
        open_now = np.exp(self.logits)
        category = rng.choice(len(open_now), size=shape, p=open_now / open_now.sum())
        old = interest_of(category, rng.integers(words.SUBCATEGORIES, size=shape), rng.integers(len(words.COLOURS), size=shape))
        place = (np.arange(len(local)) - (np.cumsum(events) - events)[local]) / events[local]
        early, follows = place < 0.5, rng.random(len(local)) < STAYS
        sessions = int(session.max(initial=-1)) + 1
        returns, which = rng.random(sessions) < self.settings.long_range, rng.integers(count, size=sessions)
        then = old[local, np.minimum((2 * place * count).astype(np.int64), count - 1)]
        active = np.where(early & follows, then, active)
        return old, np.where(~early & returns[session], old[local, which[session]], active)

    def _choices(self, rng: np.random.Generator, local: Int64, days: Int64, active: Int64, level: Float32) -> Int64:
        """(E,) the item each event is about. What a person had before is rarely chosen again."""
        n = len(self.catalogue.ids)
        items = np.empty(len(local), dtype=np.int64)
        pending, had = np.arange(len(local)), np.empty(0, dtype=np.int64)
        fond = rng.random(len(local)) < FOND
        for _ in range(5):
            for start in range(0, len(pending), PIECE):
                piece = pending[start : start + PIECE]
                items[piece] = self._choose(rng, local[piece] * n, days[piece], active[piece], level[local[piece]], had)
            had, first = np.unique(local * n + items, return_index=True)
            again = np.ones(len(items), dtype=bool)
            again[first] = False
            pending = np.flatnonzero(again & ~fond)
        return items

    def _choose(self, rng: np.random.Generator, owner: Int64, days: Int64, active: Int64, level: Float32, had: Int64) -> Int64:
        """(E,) one item from a slate of M shown items, by softmax of the utility (drawn as the argmax after Gumbel noise is added).

        `had`: the sorted keys `owner` + item that are not to be chosen again; empty at first.
        """
        wanted = np.repeat(category_of(active)[:, None], SHOWN // 2, axis=1)
        slate = np.concatenate([self.shelf.any(rng, days, SHOWN - SHOWN // 2), self.shelf.of(rng, days, wanted)], axis=1)
        shut = ~self.shelf.open(days, wanted[:, 0])
        slate[shut, SHOWN - SHOWN // 2 :] = slate[shut, : SHOWN // 2]
        score = utility(self.catalogue, slate, self.catalogue.interests[active], level)
        score -= np.log(rng.standard_exponential(slate.shape, dtype=np.float32) + np.float32(1e-20))
        if len(had):
            key = owner[:, None] + slate
            score[had[np.minimum(np.searchsorted(had, key), len(had) - 1)] == key] = -np.inf
        return slate[np.arange(len(slate)), score.argmax(axis=1)]


def utility(catalogue: Catalogue, items: Int64, interest: Float32, level: Float32) -> Float32:
    """(E, M) what a person with the interest vectors (E, D) and price levels (E,) sees in `items` (E, M)."""
    match = np.matmul(catalogue.vectors[items], interest[:, :, None])[:, :, 0]
    price = np.abs(catalogue.price_level[items] - level[:, None])
    return np.asarray(np.float32(SHARPNESS) * match + np.log(catalogue.appeal).astype(np.float32)[items] * np.float32(APPEAL) - np.float32(PRICE) * price)
