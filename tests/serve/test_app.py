"""The HTTP service over a small stand-in recommender: answers, refusals in one shape, limits, token, counts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from vitrail.data.conditions import matches
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError
from vitrail.serve.app import create_app


class Fake:
    """Answers the catalogue in order; users are u0 and u1."""

    name = "fake"

    def __init__(self) -> None:
        self.info: dict[str, Any] = {"stage": "retrieve", "family": "test", "fingerprint": "abc"}
        self.items = pl.DataFrame({"item": ["a/1", "b", "ü 2", "007"], "price": [1.0, 25.0, None, math.nan], "tags": [["x"], [], None, ["x", "y"]]})
        self.item_ids = Vocabulary(self.items["item"])

    def answer(self, user: str | None, history: list[str] | None, k: int, include_seen: bool, filter: str | None) -> dict[str, Any]:
        if user == "crash":
            raise RuntimeError("secret detail")
        table = self.items if filter is None else self.items.filter(matches(filter, self.items))
        if table.is_empty():
            raise DataError(f"The filter {filter} leaves no item.")
        seen = set() if include_seen else set(history or ())
        items = [name for name in table["item"] if name not in seen][:k]
        known = user in ("u0", "u1") or any(self.item_ids.code(name) >= 0 for name in history or ())
        places = [{"name": "fake", "rank": r, "score": 1 / r} for r in range(1, len(items) + 1)]
        rows = [{"item": name, **places[i], "sources": [places[i]], "why": None} for i, name in enumerate(items)]
        for row in rows:
            del row["name"]
        return {"user": user, "fallback": None if known else "popular", "items": rows}

    def similar(self, items: list[str], k: int = 10, *, filter: str | None = None) -> pl.DataFrame:
        others = [name for name in self.items["item"] if name != items[0]][:k]
        return pl.DataFrame({"query": items * len(others), "item": others, "rank": range(1, len(others) + 1), "score": [0.5] * len(others)})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Fake(), max_k=3, max_body=2000, max_history=5), raise_server_exceptions=False) as client:
        yield client


def error(answer: Any) -> str:
    """The one sentence of a refused request."""
    body = answer.json()
    assert list(body) == ["error"]
    assert "\n" not in body["error"]
    assert body["error"].endswith((".", "?"))
    assert answer.headers["x-request-id"]
    return str(body["error"])


def test_recommend_for_a_user_has_the_house_shape(client: TestClient) -> None:
    answer = client.post("/recommend", json={"user": "u0", "k": 2}, headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["user", "request_id", "variant", "fallback", "degraded", "items", "propensities"]
    assert (body["user"], body["request_id"], body["variant"], body["fallback"], body["degraded"]) == ("u0", "abc-1", "model", None, None)
    assert body["propensities"] == [1.0, 1.0]
    assert [row["item"] for row in body["items"]] == ["a/1", "b"]
    assert body["items"][0] == {"item": "a/1", "rank": 1, "score": 1.0, "sources": [{"name": "fake", "rank": 1, "score": 1.0}], "why": None}


def test_get_equals_post(client: TestClient) -> None:
    posted = client.post("/recommend", json={"user": "u1", "k": 3, "filter": "price < 20"}).json()
    got = client.get("/recommend", params={"user": "u1", "k": 3, "filter": "price < 20"}).json()
    assert got["items"] == posted["items"]
    assert [row["item"] for row in got["items"]] == ["a/1"]
    posted = client.post("/similar", json={"item": "b", "k": 2}).json()
    got = client.get("/similar", params={"item": "b", "k": 2}).json()
    assert got["items"] == posted["items"]
    assert [row["item"] for row in got["items"]] == ["a/1", "ü 2"]


def test_history_and_include_seen(client: TestClient) -> None:
    assert [row["item"] for row in client.post("/recommend", json={"history": ["b"], "k": 3}).json()["items"]] == ["a/1", "ü 2", "007"]
    seen = client.post("/recommend", json={"history": ["b"], "k": 3, "include_seen": True}).json()
    assert [row["item"] for row in seen["items"]] == ["a/1", "b", "ü 2"]
    assert seen["user"] is None


@pytest.mark.parametrize("body", [{"user": "nobody"}, {"history": []}, {"history": ["nothing"]}, {"user": ""}])
def test_day_zero_is_answered_and_flagged(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200
    assert answer.json()["fallback"] == "popular"
    assert answer.json()["items"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "either"),
        ({"user": None, "history": None}, "either"),
        ({"user": "a\x00b"}, '"user"'),
        ({"user": "u0", "k": 4}, '"k"'),
        ({"user": "u0", "k": 0}, '"k"'),
        ({"user": "u0", "k": 10**30}, '"k"'),
        ({"user": "u0", "k": "many"}, '"k"'),
        ({"user": 42}, '"user"'),
        ({"user": "x" * 1500}, '"user"'),
        ({"user": "u0", "kk": 3}, 'Unknown key "kk".*'),
        ({"user": "u0", "fliter": "price < 2"}, 'Did you mean "filter"'),
        ({"history": ["b"] * 6}, '"history"'),
        ({"history": [1]}, '"history.0"'),
        ({"user": "u0", "filter": "prize < 2"}, 'Did you mean "price"'),
        ({"user": "u0", "filter": "__import__('os')"}, "not allowed"),
        ({"user": "u0", "filter": "price > 1000"}, "leaves no item"),
        ([], "JSON object"),
        ("text", "JSON object"),
    ],
)
def test_bad_bodies_get_one_sentence(client: TestClient, body: Any, sentence: str) -> None:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 422
    assert re.search(sentence, error(answer))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b'{"user": "\\ud800"}', b"[" * 1500, b'{"user": NaN}', b"null", b'{"user": "u0", "k": 1e999}'])
def test_what_is_not_json_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    error(answer)


def test_a_form_body_is_told_about_the_content_type(client: TestClient) -> None:
    answer = client.post("/recommend", content=b'{"user": "u0"}', headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 422
    assert "application/json" in error(answer)


@pytest.mark.parametrize("query", ["", "user=u0&k=99", "user=u0&k=x", "user=u0&limit=3", "user=u0&include_seen=perhaps"])
def test_bad_queries_get_one_sentence(client: TestClient, query: str) -> None:
    answer = client.get(f"/recommend?{query}")
    assert answer.status_code == 422
    error(answer)


def test_items(client: TestClient) -> None:
    assert client.get("/items/a%2F1").json() == {"item": "a/1", "price": 1.0, "tags": ["x"]}
    assert client.get("/items/a/1").json()["item"] == "a/1"
    assert client.get("/items/ü 2").json() == {"item": "ü 2", "price": None, "tags": None}
    assert client.get("/items/007").json() == {"item": "007", "price": None, "tags": ["x", "y"]}
    for absent in ("7", "../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "x" * 3000, "%00"):
        answer = client.get(f"/items/{absent}")
        assert answer.status_code == 404
        error(answer)


def test_unknown_item_to_similar_is_404(client: TestClient) -> None:
    answer = client.post("/similar", json={"item": "nothing"})
    assert answer.status_code == 404
    assert '"nothing"' in error(answer)


def test_unknown_place_and_method(client: TestClient) -> None:
    assert "/docs" in error(client.get("/nothing"))
    answer = client.delete("/recommend")
    assert answer.status_code == 405
    error(answer)


def test_body_limit_counts_real_bytes(client: TestClient) -> None:
    whole = json.dumps({"user": "u0", "filter": " " * 2000 + "price < 2"}).encode()
    answer = client.post("/recommend", content=whole, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    error(answer)

    def pieces() -> Iterator[bytes]:  # no Content-Length: only counting helps
        yield whole[:1000]
        yield whole[1000:]

    answer = client.post("/recommend", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413

    def honest() -> Iterator[bytes]:
        yield b'{"user": '
        yield b'"u0"}'

    assert client.post("/recommend", content=honest(), headers={"Content-Type": "application/json"}).status_code == 200
    exact = b'{"user": "u0"}'.ljust(2000)
    assert client.post("/recommend", content=exact, headers={"Content-Type": "application/json"}).status_code == 200
    assert client.post("/recommend", content=exact + b" ", headers={"Content-Type": "application/json"}).status_code == 413
    assert client.request("GET", "/health", content=b"x" * 3000).status_code == 413


def test_request_ids(client: TestClient) -> None:
    def id_for(given: str | None) -> str:
        answer = client.post("/recommend", json={"user": "u0"}, headers={} if given is None else {"X-Request-ID": given})
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        return str(answer.json()["request_id"])

    assert id_for("a.B-1:2_3") == "a.B-1:2_3"
    assert len(id_for(None)) == 36
    assert id_for(None) != id_for(None)
    for bad in ("", "x" * 200, "has space", "<script>"):
        assert len(id_for(bad)) == 36


def test_a_fault_inside_shows_nothing_of_it(client: TestClient) -> None:
    answer = client.post("/recommend", json={"user": "crash"}, headers={"X-Request-ID": "broken-1"})
    assert answer.status_code == 500
    assert "broken-1" in error(answer)
    assert "secret" not in answer.text


def test_metrics_count_by_route_and_status() -> None:
    with TestClient(create_app(Fake())) as client:
        client.post("/recommend", json={"user": "u0"})
        client.post("/recommend", json={"user": "u0", "k": 0})
        for i in range(20):
            client.get(f"/nothing/{i}")
            client.get(f"/items/{i}")
        text = client.get("/metrics").text
    assert 'vitrail_requests_total{method="POST",route="/recommend",status="200"} 1.0' in text
    assert 'vitrail_requests_total{method="POST",route="/recommend",status="422"} 1.0' in text
    assert 'vitrail_requests_total{method="GET",route="other",status="404"} 20.0' in text
    assert 'vitrail_requests_total{method="GET",route="/items/{id}",status="404"} 20.0' in text
    assert 'vitrail_request_seconds_count{route="/recommend"} 2.0' in text
    assert "vitrail_catalogue_items 4.0" in text
    assert 'vitrail_model_info{family="test",fingerprint="abc",stage="retrieve",system="fake"} 1.0' in text


def test_token() -> None:
    with TestClient(create_app(Fake(), token="s3cret-ü")) as client:
        assert client.get("/health").status_code == 200
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}, {"Authorization": "Basic s3cret"}, {"Authorization": "Bearer "}):
            for path in ("/recommend?user=u0", "/similar?item=b", "/items/b", "/metrics", "/openapi.json", "/nothing"):
                answer = client.get(path, headers=header)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                error(answer)
        assert client.get("/recommend?user=u0", headers={b"Authorization": "Bearer s3cret-ü".encode()}).status_code == 200  # type: ignore[dict-item]


def test_docs_need_no_other_host(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    described = client.get("/openapi.json").json()
    assert {"/recommend", "/similar", "/items/{id}", "/health", "/metrics"} <= set(described["paths"])
    k = described["components"]["schemas"]["Recommend"]["properties"]["k"]
    assert (k["minimum"], k["maximum"]) == (1, 3)
    assert "Answer" in described["components"]["schemas"]


def test_health(client: TestClient) -> None:
    body = client.get("/health").json()
    assert body["status"] == "ok"
    assert body["system"] == "fake"
    assert body["items"] == 4
