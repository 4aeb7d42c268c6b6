"""The loop closed: events change the next answer, answers are logged and joined, items change while it serves, versions come and go."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from vitrail.data.conditions import matches
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import ArtifactError, DataError
from vitrail.serve.answerer import Question
from vitrail.serve.app import create_app
from vitrail.serve.guard import logger as service_logger
from vitrail.serve.live import Live
from vitrail.serve.logs import JsonLines
from vitrail.serve.meter import Meter
from vitrail.serve.models import Models, Plan, version_of
from vitrail.serve.store.base import Event, Served, Store, StoreAway, StoreFull, open_store
from vitrail.serve.tokens import Tokens


class Shop:
    """Answers the catalogue after the last item of the history; what a user did before is in `known`."""

    def __init__(self, name: str = "shop", hold: threading.Event | None = None, known: dict[str, list[tuple[str, int]]] | None = None) -> None:
        self._name, self.hold, self.known = name, hold, known or {}
        self.info: dict[str, Any] = {}
        self.items = pl.DataFrame({"item": [f"i{n}" for n in range(10)], "price": [float(n) for n in range(10)], "tags": [["x"]] * 10, "day": [None] * 10})
        self.items = self.items.with_columns(pl.col("day").cast(pl.Date))
        self.item_ids = Vocabulary(self.items["item"])
        self.asked: list[tuple[str | None, list[str] | None]] = []

    @property
    def name(self) -> str:
        return self._name

    def known_events(self, user: str) -> set[tuple[str, int]]:
        return set(self.known.get(user, []))

    def answer(self, user: str | None, history: list[str] | None, k: int, include_seen: bool, filter: str | None) -> dict[str, Any]:
        self.asked.append((user, history))
        if self.hold is not None and history != []:
            self.hold.wait(30)
        seen = [item for item, _ in self.known.get(user or "", [])] + list(history or [])
        start = self.item_ids.code(seen[-1]) + 1 if seen else 0
        names = [f"i{(start + n) % 10}" for n in range(10)]
        if filter is not None:
            passing = set(self.items.filter(matches(filter, self.items))["item"])
            if not passing:
                raise DataError("The filter leaves no item.")
            names = [name for name in names if name in passing]
        names = [name for name in names if include_seen or name not in seen][:k]
        rows = [{"item": name, "rank": r, "score": 1 / r, "sources": [], "why": None, "propensity": 0.5} for r, name in enumerate(names, start=1)]
        return {"user": user, "fallback": None if seen else "popular", "items": rows}

    def similar(self, items: list[str], k: int = 10, *, filter: str | None = None) -> pl.DataFrame:
        others = [name for name in self.items["item"] if name != items[0]][:k]
        return pl.DataFrame({"item": others, "rank": range(1, len(others) + 1), "score": [0.5] * len(others)})


class Full(Shop):
    """A shop with every ability."""

    def answer(  # type: ignore[override]
        self, user: Any, history: Any, k: int, include_seen: bool, filter: Any, *, context: Any = None, explain: bool = False, budget_ms: Any = None
    ) -> dict[str, Any]:
        found = super().answer(user, history, k, include_seen, filter)
        found["items"] = [{**row, "why": {"context": context} if explain else None} for row in found["items"]]
        return found | {"degraded": None if budget_ms is None else f"cut short after {budget_ms:g} ms"}

    def overlay(self, changes: Any, withdrawn: Any) -> None:
        self.told = (dict(changes), set(withdrawn))

    def search(self, text: str | None, picture: bytes | None, k: int, *, filter: str | None = None) -> pl.DataFrame | None:
        if picture is not None:
            return None
        return pl.DataFrame({"item": ["i3", "i1", "i2"][:k], "rank": [1, 2, 3][:k], "score": [0.9, 0.8, 0.7][:k]})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


Serving = Callable[..., TestClient]


@pytest.fixture
def serving(store: Store) -> Iterator[Serving]:
    """Opens a service over a shop; its writer stops at the end."""
    clients: list[TestClient] = []

    def serve(shop: Any = None, **flags: Any) -> TestClient:
        client = TestClient(create_app(shop or Shop(), **({"store": store, "flush": 0.01} | flags)), raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield serve
    for client in clients:
        client.__exit__(None, None, None)


def items(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["item"] for row in answer.json()["items"]]


def sentence(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].endswith((".", "?"))
    return str(answer.json()["error"])


def eventually(check: Callable[[], Any]) -> Any:
    for _ in range(200):
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


class Counting(Shop):
    """Counts what happens, and is told when."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.heard = True, 0
        self.counted: list[Any] = []
        self.times: list[list[int] | None] = []

    def hear(self, events: pl.DataFrame) -> None:
        self.counted += events.select("user", "item", "event").rows()

    def answer(self, *asked: Any, times: list[int] | None = None) -> dict[str, Any]:  # type: ignore[override]
        self.times.append(times)
        return super().answer(*asked)


# events


def test_a_model_that_counts_hears_of_every_event_once(store: Store) -> None:
    """Those of other processes too, and those from before it was loaded; of none that is yet to come."""
    store.write([[Event("e1", "u", "i1", 5), Event("e2", "v", "i2", 6, "view"), Event("e3", "v", "i3", 4 * 10**15)]])
    shop = Counting()
    live = Live(Models(version_of("a", shop)), Meter("a", 10, {}), store=store, history_kinds=frozenset({"click"}))
    assert shop.counted == [("u", "i1", "click")]
    store.write([[Event("e4", "u", "i4", 7), Event("e1", "u", "i1", 5)]])
    live.look()
    live.look()
    assert shop.counted == [("u", "i1", "click"), ("u", "i4", "click")]
    found = asyncio.run(live.recommend(Question("u", None, 2), "r"))
    assert [row["item"] for row in found["items"]] == ["i5", "i6"] and shop.times[-1] == [5, 7]
    asyncio.run(live.recommend(Question("u", ["i7"], 2), "r2"))
    assert shop.times[-1] is None, "of what a request tells itself no times are known"
    shop.counts, shop.heard = False, 0
    live.look()
    assert len(shop.counted) == 2, "who does not count is told of nothing"
    assert live.writer is not None
    live.writer.close()


def test_an_event_changes_the_next_answer(serving: Serving, store: Store) -> None:
    client = serving()
    assert items(client.get("/recommend?user=u&k=2")) == ["i0", "i1"]
    told = client.post("/events", json={"user": "u", "item": "i4", "event_id": "e1"})
    assert told.json() | {"request_id": ""} == {"request_id": "", "event_ids": ["e1"], "new": 1, "known": 0}
    assert items(client.get("/recommend?user=u&k=2")) == ["i5", "i6"]
    assert items(client.post("/recommend", json={"user": "u", "history": ["i7"], "k": 2})) == ["i8", "i9"]
    assert items(client.get("/recommend?user=v&k=2")) == ["i0", "i1"]
    assert store.history("u", 5)[0].kind == "click"


def test_an_event_sent_twice_is_there_once(serving: Serving, store: Store) -> None:
    client = serving()
    batch = {"events": [{"user": "u", "item": "i1", "event_id": f"e{n}", "timestamp": f"2026-01-0{n + 1}T00:00:00+02:00"} for n in range(3)]}
    assert client.post("/events", json=batch).json()["new"] == 3
    again = client.post("/events", json=batch).json()
    assert (again["new"], again["known"]) == (0, 3)
    assert len(client.post("/events", json={"user": "u", "item": "i1"}).json()["event_ids"][0]) == 36
    kept = store.events(0, 10)
    assert len(kept) == 4
    assert datetime.fromtimestamp(kept[0][1].timestamp / 1e6, UTC).isoformat() == "2025-12-31T22:00:00+00:00"
    text = client.get("/metrics").text
    assert 'vitrail_events_total{outcome="new"} 4.0' in text
    assert 'vitrail_events_total{outcome="known"} 3.0' in text


def test_what_the_artifact_knows_is_not_counted_twice(serving: Serving) -> None:
    when = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    shop = Shop(known={"u": [("i2", when)]})
    client = serving(shop)
    for item, time_ in (("i2", "2026-01-01T00:00:00Z"), ("i2", "2026-01-02T00:00:00Z")):
        client.post("/events", json={"user": "u", "item": item, "timestamp": time_})
    client.get("/recommend?user=u")
    assert shop.asked[-1] == ("u", ["i2"])


def test_only_kinds_that_are_history(serving: Serving) -> None:
    shop = Shop()
    client = serving(shop, history_kinds=frozenset({"buy"}))
    for item, kind in (("i1", "buy"), ("i2", "dismiss")):
        client.post("/events", json={"user": "u", "item": item, "event": kind})
    client.get("/recommend?user=u")
    assert shop.asked[-1] == ("u", ["i1"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, '"user" is missing'),
        ({"user": "u"}, '"item" is missing'),
        ({"user": "", "item": "i"}, '"user"'),
        ({"user": "u\x00", "item": "i"}, '"user"'),
        ({"user": 1, "item": "i"}, '"user"'),
        ({"user": "u", "item": "i", "timestamp": "yesterday"}, '"timestamp"'),
        ({"user": "u", "item": "i", "timestamp": "2026-01-01T00:00:00"}, "timezone"),
        ({"user": "u", "item": "i", "timestamp": "1969-12-31T23:59:59Z"}, "1970 to 2200"),
        ({"user": "u", "item": "i", "value": math.inf}, "JSON"),
        ({"user": "u", "item": "i", "request_id": "a b"}, '"request_id"'),
        ({"user": "u", "item": "i", "context": {"x": "y" * 5000}}, "too long"),
        ({"user": "u", "item": "i", "itm": 1}, 'Did you mean "item"'),
        ({"events": []}, '"events"'),
        ({"events": [{"user": "u", "item": "i"}] * 1001}, '"events"'),
        ({"events": [{"user": "u", "item": "i"}, {"user": "u"}]}, '"events.1.item" is missing'),
        ({"events": {}}, '"events"'),
        ([], "JSON object"),
        ("x", "JSON object"),
    ],
)
def test_bad_events_are_refused_whole(serving: Serving, store: Store, body: Any, words: str) -> None:
    content = json.dumps(body)
    answer = serving().post("/events", content=content, headers={"Content-Type": "application/json"})
    assert words in sentence(answer, 422)
    assert store.events(0, 1) == []


def test_events_want_a_content_type_that_no_form_can_send(serving: Serving) -> None:
    assert "application/json" in sentence(serving().post("/events", content=b'{"user": "u", "item": "i"}', headers={"Content-Type": "text/plain"}), 422)
    assert "not valid JSON" in sentence(serving().post("/events", content=b"{", headers={"Content-Type": "application/json"}), 422)


def test_without_a_store_nothing_is_kept(serving: Serving) -> None:
    client = serving(store=None)
    assert items(client.get("/recommend?user=u&k=1")) == ["i0"]
    for answer in (client.post("/events", json={"user": "u", "item": "i"}), client.post("/items", json={"withdraw": ["i1"]}), client.delete("/items/i1")):
        assert "--store" in sentence(answer, 501)
    assert client.get("/ready").json()["store"] is False
    assert client.post("/models", json={"action": "shadow"}).status_code == 200


class Stubborn:
    """A store that can be told to refuse."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.error = inner, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def history(self, user: str, limit: int) -> Any:
        if isinstance(self.error, StoreAway):
            raise self.error
        return self.inner.history(user, limit)

    def rates(self, since: int) -> Any:
        if isinstance(self.error, StoreAway):
            raise self.error
        return self.inner.rates(since)

    def write(self, events: Any, served: Any = ()) -> Any:
        if self.error is not None:
            raise self.error
        if any(event.item == "poison" for batch in events for event in batch) or any(one.user == "poison" for one in served):
            raise ValueError("secret")
        return self.inner.write(events, served)


def test_a_full_store_refuses_events_and_answers_questions(serving: Serving, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.serve.writer.RETRY", 0.05)
    stubborn = Stubborn(store)
    client = serving(store=stubborn)
    client.post("/events", json={"user": "u", "item": "i4"})
    for error, status, first in ((StoreFull("It is full."), 507, "i5"), (StoreAway("It is away."), 503, "i0")):
        stubborn.error = error
        assert sentence(client.post("/events", json={"user": "u", "item": "i5"}), status) == str(error)
        for n in range(2):
            answer = client.get("/recommend?user=u&k=1", headers={"X-Request-ID": f"r{status}" if n else f"first-{status}"})
            assert items(answer) == [first]
            assert (answer.json()["degraded"] is None) == (status == 507)
        assert client.get("/metrics").status_code == 200
        assert sentence(client.get("/ready"), 503) == str(error)
        assert client.get("/health").status_code == 200
    stubborn.error = None
    # what was answered meanwhile is kept once there is room
    eventually(lambda: {one.request for _, one in store.served(0, 9)} >= {"r507", "r503"})
    assert client.post("/events", json={"user": "u", "item": "i5"}).json()["new"] == 1
    assert client.get("/ready").status_code == 200


def test_one_record_that_cannot_be_kept_keeps_no_other_out(serving: Serving, store: Store) -> None:
    client = serving(Shop(), store=Stubborn(store))
    client.get("/recommend?user=poison")
    client.get("/recommend?user=fine")
    answer = client.post("/events", json={"user": "u", "item": "poison"})
    assert "secret" not in sentence(answer, 500)
    assert client.post("/events", json={"user": "u", "item": "i1"}).json()["new"] == 1
    eventually(lambda: [one.user for _, one in store.served(0, 9)] == ["fine"])
    assert "vitrail_served_lost_total 1.0" in client.get("/metrics").text


# served answers


def test_what_is_answered_is_logged_and_joined(serving: Serving, store: Store) -> None:
    client = serving(name="v1")
    answer = client.post("/recommend", json={"user": "u", "k": 2, "context": {"page": "home"}}, headers={"X-Request-ID": "r1"}).json()
    assert answer["propensities"] == [0.5, 0.5]
    client.post("/recommend", json={"history": ["i1"], "k": 1}, headers={"X-Request-ID": "r2"})
    client.post("/events", json={"user": "u", "item": "i1", "request_id": "r1"})
    eventually(lambda: len(store.served(0, 9)) == 2)
    logged = {one.request: one for _, one in store.served(0, 9)}
    one = logged["r1"]
    assert (one.variant, one.user, list(one.items), list(one.propensities), one.context) == ("v1", "u", ["i0", "i1"], [0.5, 0.5], '{"page":"home"}')
    assert abs(one.timestamp / 1e6 - time.time()) < 60
    assert logged["r2"].user is None
    text = client.get("/metrics").text
    assert 'vitrail_variant_requests{variant="v1"} 2.0' in text
    assert 'vitrail_variant_shown_items{variant="v1"} 3.0' in text
    assert 'vitrail_variant_click_rate{variant="v1"} 0.5' in text
    low = float(text.split('vitrail_variant_click_rate_low{variant="v1"} ')[1].split("\n")[0])
    assert low == pytest.approx(0.0945, abs=1e-3)
    rates = client.get("/models").json()["rates"]["v1"]
    assert rates == {"requests": 2, "shown": 3, "clicked": 1, "clicked_requests": 1, "click_rate": 0.5, "interval": [low, pytest.approx(1 - low)]}


def test_what_waits_is_written_at_the_end(store: Store) -> None:
    with TestClient(create_app(Shop(), store=store, flush=60.0)) as client:
        client.get("/recommend?user=u")
        assert store.served(0, 9) == []
    assert len(store.served(0, 9)) == 1


def test_context_and_explain_go_to_who_takes_them(serving: Serving) -> None:
    body = {"user": "u", "k": 1, "context": {"a": 1}, "explain": True}
    assert serving(Full()).post("/recommend", json=body).json()["items"][0]["why"] == {"context": {"a": 1}}
    assert serving(Shop()).post("/recommend", json=body).json()["items"][0]["why"] is None
    assert "too long" in sentence(serving(Shop()).post("/recommend", json={"user": "u", "context": {"a": "x" * 4000}}), 422)


# items


@pytest.mark.parametrize("shop", [Shop, Full])
def test_a_withdrawn_item_is_never_answered(serving: Serving, shop: Any) -> None:
    client = serving(one := shop())
    assert client.delete("/items/i1").json()["withdrawn"] == 1
    if shop is Full:
        assert one.told == ({}, {"i1"})
    else:
        found = client.get("/recommend?user=u&k=3").json()["items"]
        assert [(row["item"], row["rank"]) for row in found] == [("i0", 1), ("i2", 2), ("i3", 3)]
        assert items(client.get("/similar?item=i5&k=3")) == ["i0", "i2", "i3"]
    assert "no item" in sentence(client.get("/items/i1"), 404)
    assert "no item" in sentence(client.delete("/items/i1"), 404)
    assert client.post("/items", json={"items": [{"item": "i1", "price": 3.5}]}).json()["changed"] == 1
    assert client.get("/items/i1").status_code == 200


def test_items_are_added_and_changed(serving: Serving, store: Store) -> None:
    client = serving(one := Full())
    body = {"items": [{"item": "i1", "price": 2, "tags": ["y"], "day": "2026-01-31"}, {"item": "new", "price": None}], "withdraw": ["gone"]}
    told = client.post("/items", json=body).json()
    assert {key: told[key] for key in ("changed", "withdrawn", "unknown_to_model")} == {"changed": 2, "withdrawn": 1, "unknown_to_model": 2}
    assert one.told == ({"i1": {"price": 2, "tags": ["y"], "day": "2026-01-31"}, "new": {"price": None}}, {"gone"})
    assert client.get("/items/new").json() == {"item": "new", "price": None}
    # another process of the service takes it over, now or at its start
    other = Full()
    serving(other)
    assert other.told == one.told
    client.delete("/items/i2")
    eventually(lambda: other.told[1] == {"gone", "i2"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, '"withdraw"'),
        ({"items": [{"price": 1}]}, '"item"'),
        ({"items": [{"item": ""}]}, '"item"'),
        ({"items": [{"item": "a\x00"}]}, '"item"'),
        ({"items": [{"item": "i", "prize": 1}]}, 'Did you mean "price"'),
        ({"items": [{"item": "i", "price": "dear"}]}, "Float64"),
        ({"items": [{"item": "i", "price": True}]}, "Float64"),
        ({"items": [{"item": "i", "price": [1]}]}, "Float64"),
        ({"items": [{"item": "i", "tags": "x"}]}, "List"),
        ({"items": [{"item": "i", "tags": [1, {"a": 1}]}]}, "List"),
        ({"items": [{"item": "i", "day": "soon"}]}, "Date"),
        ({"withdraw": [""]}, '"withdraw.0"'),
        ({"delete": ["x"]}, "Unknown key"),
    ],
)
def test_bad_changes_of_items_are_refused_whole(serving: Serving, store: Store, body: Any, words: str) -> None:
    assert words in sentence(serving().post("/items", json=body), 422)
    assert store.item_changes() == []


# search


def test_search(serving: Serving) -> None:
    client = serving(Full())
    assert items(client.post("/search", json={"text": "red lipstick", "k": 2})) == ["i3", "i1"]
    client.delete("/items/i1")
    found = client.post("/search", json={"text": "red", "k": 2}).json()["items"]
    assert [(row["item"], row["rank"]) for row in found] == [("i3", 1), ("i2", 2)]
    assert "pictures" in sentence(client.post("/search?k=2", content=b"...", headers={"Content-Type": "image/png"}), 501)
    assert "empty" in sentence(client.post("/search", content=b"", headers={"Content-Type": "image/png"}), 422)
    assert "image/png" in sentence(client.post("/search", content=b"x", headers={"Content-Type": "text/plain"}), 415)
    assert '"text" is missing' in sentence(client.post("/search", json={"k": 2}), 422)
    assert '"k"' in sentence(client.post("/search", json={"text": "x", "k": 101}), 422)
    assert "no vectors of text" in sentence(serving(Shop()).post("/search", json={"text": "x"}), 501)


# versions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("v1", "v2", "broken"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "manifest.json").write_text("{}")
    (tmp_path / "models" / "notes").mkdir()
    return tmp_path / "models"


def load(path: Path) -> Any:
    if path.name == "broken":
        raise ArtifactError("It is damaged: its checksum differs.")
    return Full(path.name) if path.name == "v2" else Shop(path.name)


def change(client: TestClient, action: str, name: str | None = None, share: float | None = None) -> Any:
    return client.post("/models", json={"action": action, "name": name, "share": share})


def variants(client: TestClient) -> dict[str, str]:
    return {f"u{n}": client.get(f"/recommend?user=u{n}&k=1").json()["variant"] for n in range(60)}


def test_versions_are_switched_and_rolled_back(serving: Serving, folder: Path) -> None:
    client = serving(name="v1", models=folder, load=load)
    assert client.get("/models").json()["offered"] == ["broken", "v1", "v2"]
    assert [row["name"] for row in change(client, "load", "v2").json()["versions"]] == ["v1", "v2"]
    assert set(variants(client).values()) == {"v1"}
    told = change(client, "switch", "v2").json()
    assert (told["current"], told["previous"]) == ("v2", "v1")
    assert set(variants(client).values()) == {"v2"}
    assert client.get("/health").json()["system"] == "v2"
    assert change(client, "rollback").json()["current"] == "v1"
    assert set(variants(client).values()) == {"v1"}
    assert [row["name"] for row in change(client, "unload", "v2").json()["versions"]] == ["v1"]
    assert "roll back" in sentence(change(client, "rollback"), 422)


def test_a_share_of_users_sticks(serving: Serving, folder: Path) -> None:
    client = serving(name="v1", models=folder, load=load)
    told = change(client, "share", "v2", 0.3).json()
    assert {row["name"]: row["share"] for row in told["versions"]} == {"v1": pytest.approx(0.7), "v2": 0.3}
    before = variants(client)
    assert 5 <= sum(name == "v2" for name in before.values()) <= 35
    assert variants(client) == before
    change(client, "share", "v2", 0.6)
    after = variants(client)
    assert all(after[user] == "v2" for user, name in before.items() if name == "v2")
    change(client, "share", "v2", 0.0)
    assert set(variants(client).values()) == {"v1"}


def test_a_damaged_model_is_refused_and_the_old_one_serves(serving: Serving, folder: Path) -> None:
    client = serving(name="v1", models=folder, load=load)
    for action in ("load", "switch", "shadow"):
        assert "damaged" in sentence(change(client, action, "broken"), 422)
    assert "damaged" in sentence(change(client, "share", "broken", 0.5), 422)
    assert client.get("/models").json()["current"] == "v1"
    assert set(variants(client).values()) == {"v1"}


@pytest.mark.parametrize(
    ("action", "name", "share", "words"),
    [
        ("load", "../v2", None, "no model"),
        ("load", "notes", None, "no model"),
        ("load", "/etc", None, "no model"),
        ("load", None, None, "wants the name"),
        ("share", "v2", None, "wants a share"),
        ("share", "v1", 0.5, "no share takes"),
        ("unload", "v1", None, "in use"),
        ("unload", "v9", None, "no loaded version"),
        ("drop", "v1", None, '"action"'),
        ("share", "v2", 1.0, '"share"'),
    ],
)
def test_bad_changes_of_models(serving: Serving, folder: Path, action: str, name: Any, share: Any, words: str) -> None:
    client = serving(name="v1", models=folder, load=load)
    assert words in sentence(change(client, action, name, share), 422)
    assert client.get("/models").json()["current"] == "v1"


def test_shares_leave_something(serving: Serving, folder: Path) -> None:
    (folder / "v3").mkdir()
    (folder / "v3" / "manifest.json").write_text("{}")
    client = serving(name="v1", models=folder, load=load)
    change(client, "share", "v2", 0.5)
    assert "add up" in sentence(change(client, "share", "v3", 0.5), 422)
    assert "no folder of models" in sentence(change(serving(store=None), "load", "v2"), 422)
    assert "no folder of models" in sentence(change(serving(store=None, models=folder / "none"), "load", "v2"), 422)


def test_a_shadow_listens_and_is_not_heard(serving: Serving, folder: Path, store: Store) -> None:
    client = serving(name="v1", models=folder, load=load)
    change(client, "shadow", "v2")
    assert {client.get("/recommend?user=u&k=4").json()["variant"]} == {"v1"}
    eventually(lambda: 'vitrail_shadow_requests_total{outcome="answered",variant="v2"} 1.0' in client.get("/metrics").text)
    assert 'vitrail_shadow_overlap_total{variant="v2"} 1.0' in client.get("/metrics").text
    client.app.state.live.models.shadow.asker.answerer.items = None  # type: ignore[attr-defined]
    client.get("/recommend?user=u&filter=price<3")
    eventually(lambda: 'outcome="failed",variant="v2"} 1.0' in client.get("/metrics").text)
    client.app.state.live._listening = 99  # type: ignore[attr-defined]
    client.get("/recommend?user=u")
    assert 'outcome="skipped",variant="v2"} 1.0' in client.get("/metrics").text
    client.app.state.live._listening = 0  # type: ignore[attr-defined]
    client.app.state.live.models.shadow.asker.answerer.items = Shop().items  # type: ignore[attr-defined]
    assert [(row["name"], row["share"], row["shadow"]) for row in change(client, "shadow").json()["versions"]] == [("v1", 1, False), ("v2", 0, False)]


def test_other_processes_and_restarts_follow_the_plan(serving: Serving, folder: Path, store: Store) -> None:
    first, second = (serving(name="v1", models=folder, load=load) for _ in range(2))
    change(first, "switch", "v2")
    eventually(lambda: second.get("/models").json()["current"] == "v2")
    assert serving(name="v1", models=folder, load=load).get("/models").json()["current"] == "v2"
    first.post("/items", json={"withdraw": ["i1"]})
    change(first, "load", "v2")  # read from disk again
    eventually(lambda: second.app.state.live.models.plan.loads == {"v2": 2})  # type: ignore[attr-defined]
    assert first.app.state.live.models.current.asker.answerer.told == ({}, {"i1"})  # type: ignore[attr-defined]
    # a plan that cannot be followed is not
    broken = json.dumps(Plan(current="broken").model_dump())
    store.put_state("models", broken)
    eventually(lambda: first.app.state.live._plan_text == broken)  # type: ignore[attr-defined]
    assert first.get("/models").json()["current"] == "v2"
    store.put_state("models", '{"current": 3}')
    assert serving(name="v1", models=folder, load=load).get("/models").json()["current"] == "v1"


# time, roles, rate


def test_a_slow_model_is_answered_within_the_budget(serving: Serving) -> None:
    hold = threading.Event()
    client = serving(Shop(hold=hold), budget_ms=40)
    client.post("/items", json={"withdraw": ["i1"]})
    # it comes although the model does not
    answer = client.get("/recommend?user=u&k=2&filter=price<5").json()
    assert [row["item"] for row in answer["items"]] == ["i0", "i2"]
    assert (answer["fallback"], "40 ms" in answer["degraded"]) == ("popular", True)
    client.app.state.live._late = 99  # type: ignore[attr-defined]
    assert client.get("/recommend?user=u").json()["degraded"]
    client.app.state.live._late = 1  # type: ignore[attr-defined]
    assert "vitrail_degraded_total 2.0" in client.get("/metrics").text
    hold.set()
    eventually(lambda: client.app.state.live._late == 0)  # type: ignore[attr-defined]
    assert serving(Full(), budget_ms=5000).get("/recommend?user=u").json()["degraded"] == "cut short after 4000 ms"
    hold.clear()
    assert "no column" in sentence(client.get("/recommend?user=u&filter=prize<5"), 422)
    hold.set()


ROLES = {"read": "r-token", "events": "e-token", "admin": "a-token"}


@pytest.mark.parametrize(
    ("method", "path", "roles"),
    [
        ("GET", "/recommend?user=u", {"read", "admin"}),
        ("GET", "/items/i1", {"read", "admin"}),
        ("GET", "/metrics", {"read", "admin"}),
        ("POST", "/events", {"events", "admin"}),
        ("POST", "/items", {"admin"}),
        ("DELETE", "/items/i1", {"admin"}),
        ("GET", "/models", {"admin"}),
        ("POST", "/models", {"admin"}),
        ("GET", "/ready", {"read", "events", "admin"}),
    ],
)
def test_roles(serving: Serving, method: str, path: str, roles: set[str]) -> None:
    client = serving(tokens=Tokens.of(text=",".join(f"{role}:{token}" for role, token in ROLES.items())))
    bodies = {"/events": {"user": "u", "item": "i"}, "/items": {"withdraw": ["x"]}, "/models": {"action": "shadow"}}
    for role, token in ROLES.items():
        answer = client.request(method, path, json=bodies.get(path) if method == "POST" else None, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == (200 if role in roles else 403), (role, answer.text)
    if path != "/ready":
        assert client.request(method, path).status_code == 401


def test_without_tokens_an_open_host_changes_nothing(serving: Serving) -> None:
    client = serving(open_admin=False)
    assert "--tokens" in sentence(client.get("/models"), 403)
    assert "--tokens" in sentence(client.delete("/items/i1"), 403)
    assert client.get("/items/i1").status_code == 200


def test_a_client_that_asks_too_often_waits(serving: Serving) -> None:
    client = serving(rate=1.0)
    answers = [client.get("/recommend?user=u") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert "again in 1 s" in sentence(answers[-1], 429)
    assert client.get("/health").status_code == 200


def test_the_log_has_request_ids_and_no_person(serving: Serving) -> None:
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    handler.setFormatter(JsonLines())
    service_logger.addHandler(handler)
    level = service_logger.level
    service_logger.setLevel(logging.INFO)
    try:
        client = serving(Broken())
        client.get("/recommend?user=very-private&filter=price<3", headers={"X-Request-ID": "r-1"})
        client.post("/recommend", json={"user": "very-private-too"}, headers={"X-Request-ID": "r-2"})
    finally:
        service_logger.removeHandler(handler)
        service_logger.setLevel(level)
    lines = [json.loads(line) for line in heard.getvalue().splitlines()]
    assert "very-private" not in heard.getvalue()
    assert [(line["request_id"], line["status"]) for line in lines if line["what"] == "request"] == [("r-1", 500), ("r-2", 500)]
    failed = next(line for line in lines if line["what"] == "a request failed")
    assert (failed["request_id"], failed["error"], failed["level"]) == ("r-1", "RuntimeError", "error")
    assert any("test_live" in place for place in failed["where"])


class Broken(Shop):
    def answer(self, user: Any, *rest: Any) -> dict[str, Any]:
        if user is not None:
            raise RuntimeError(f"no luck with {user}")
        return super().answer(user, *rest)


# a real system


def test_a_fitted_system_follows_events_and_changes(tmp_path: Path, store: Store) -> None:
    from vitrail.testing import checkerboard
    from vitrail.train.fit import fit

    recommender = fit("item-knn", checkerboard(tmp_path / "board"), split="leave-last-out", quiet=True).recommender
    with TestClient(create_app(recommender, store=store)) as client:
        known = client.get("/recommend?user=u1&k=5").json()
        other = next(row for row in recommender.item_ids.ids if row not in {one["item"] for one in known["items"]})
        client.post("/events", json={"events": [{"user": "u1", "item": item} for item in (known["items"][0]["item"], other)]})
        moved = client.get("/recommend?user=u1&k=5&explain=true").json()
        assert known["items"][0]["item"] not in [row["item"] for row in moved["items"]]
        assert moved["fallback"] is None
        assert len(moved["items"][0]["why"]["history"]) == 3
        client.post("/events", json={"user": "stranger", "item": other})
        assert client.get("/recommend?user=stranger").json()["fallback"] is None
        gone = moved["items"][0]["item"]
        client.delete(f"/items/{gone}")
        assert gone not in items(client.get("/recommend?user=u1&k=50"))
        assert gone not in items(client.get(f"/similar?item={other}&k=50"))
        client.post("/items", json={"items": [{"item": gone, "colour": "red"}, {"item": other, "colour": "red"}]})
        assert set(items(client.get("/recommend?user=new&k=50", params={"user": "new", "filter": 'colour == "red"'}))) == {gone, other}
        assert client.get(f"/items/{other}").json()["colour"] == "red"
        assert client.post("/search", json={"text": "x"}).status_code == 501
    assert len(recommender.known_events("u1")) == 10
    assert recommender.known_events("stranger") == set()


def test_explain_without_similarity_or_history(tmp_path: Path) -> None:
    from vitrail.testing import checkerboard
    from vitrail.train.fit import fit

    recommender = fit("popular", checkerboard(tmp_path / "board"), split="leave-last-out", quiet=True).recommender
    assert all(row["why"] is None for row in recommender.answer("u1", ["i 1"], 3, explain=True)["items"])


# the writer on its own


def test_waiting_events_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.serve.writer.MOST_EVENTS", 1)
    live = Live(Models(version_of("m", Shop())), Meter("m", 1, {}), store)
    with pytest.raises(StoreAway, match="wait for the store"):
        asyncio.run(live.append([Event("a", "u", "i", 1), Event("b", "u", "i", 1)]))
    assert live.writer is not None
    live.writer.close()


def test_served_answers_that_cannot_wait_longer_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.serve.writer import Writer

    monkeypatch.setattr("vitrail.serve.writer.MOST_SERVED", 3)
    stubborn = Stubborn(store)
    stubborn.error = StoreFull("It is full.")
    writer = Writer(stubborn, flush=0.0)  # type: ignore[arg-type]
    for n in range(5):
        writer.log(Served(f"r{n}", n, "v"))
    eventually(lambda: writer.trouble)
    writer.close()
    assert writer.lost == 5
    assert np.isfinite(writer.flush)


def test_a_stop_in_the_middle_of_a_refused_write_counts_what_waits_once(store: Store) -> None:
    from vitrail.serve.writer import Writer

    class Stopping(Stubborn):
        """The writer is stopped while its first write is refused."""

        def write(self, events: Any, served: Any = ()) -> Any:
            writer._stopped = True
            return super().write(events, served)

    stopping = Stopping(store)
    stopping.error = StoreFull("It is full.")
    writer = Writer(stopping, flush=0.0)  # type: ignore[arg-type]
    writer.log(Served("r", 1, "v"))
    eventually(lambda: writer.trouble)
    writer.close()
    assert writer.lost == 1
