"""What the studio asks of the service: files, cards, pictures, histories, explained answers, data, runs; and who may ask."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from vitrail.data.dataset import Dataset
from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.funnel.build import open_answerer, run_funnel
from vitrail.funnel.catalogue import columns_for_people
from vitrail.funnel.file import FunnelFile
from vitrail.serve.app import create_app
from vitrail.serve.page import pictures
from vitrail.serve.page.cards import Cards, count_values, matching
from vitrail.serve.page.pictures import Pictures
from vitrail.serve.page.runs import read_runs
from vitrail.serve.page.static import built
from vitrail.serve.store.base import open_store
from vitrail.train.fit import fit

API = "/studio/api/"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    simulate(root / "shop", settings=SimulatorSettings(users=60, items=40, events=1200, seed=0))
    dataset = Dataset(root / "shop")
    fit("item-knn", dataset, out=root / "runs" / "item-knn", seed=0, quiet=True)
    fit("sasrec", dataset, out=root / "runs" / "sasrec", seed=0, settings={"dim": 8, "layers": 2, "epochs": 1}, quiet=True)
    retrieve = [{"run": str(root / "runs" / name), "k": 20} for name in ("item-knn", "sasrec")]
    stages = {"arrange": {"system": "mmr"}, "explore": {"policy": "epsilon-greedy", "settings": {"epsilon": 0.0}}}
    run_funnel(FunnelFile.of({"funnel": "all", "data": str(root / "shop"), "retrieve": retrieve, **stages}), root / "runs" / "all")
    return root


@pytest.fixture(scope="module")
def client(shop: Path) -> Iterator[TestClient]:
    app = create_app(
        open_answerer(shop / "runs" / "all"), name="all", store=open_store(str(shop / "store.sqlite")), models=shop / "runs", load=open_answerer,
        runs=shop / "runs",
    )  # fmt: skip
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def user(client: TestClient) -> str:
    return str(client.get(API + "users", params={"k": 1}).json()["users"][0]["user"])


def test_files_are_a_fixed_map_with_a_rule_and_a_tag(client: TestClient) -> None:
    home = client.get("/studio", follow_redirects=True)
    assert home.status_code == 200 and home.headers["content-type"].startswith("text/html")
    assert home.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data: blob:")
    assert home.headers["content-encoding"] == "gzip" and home.headers["cache-control"] == "no-cache"
    assert client.get("/studio/", headers={"if-none-match": home.headers["etag"]}).status_code == 304
    script = next(address for address in built() if address.endswith(".js"))
    assert "immutable" in client.get(script).headers["cache-control"]
    plain = client.get(script, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.content == client.get(script).content
    for path in ("/studio/../app.py", "/studio/%2e%2e/app.py", "/studio/assets/../../app.py", "/studio/index.html", "/studio/assets/"):
        assert client.get(path).status_code == 404
    assert client.head("/studio/").status_code == 200


def test_state_tells_versions_dials_and_columns(client: TestClient) -> None:
    state = client.get(API + "state").json()
    (version,) = [one for one in state["versions"] if one["name"] == "all"]
    assert version["kind"] == "funnel" and version["dials"] == {"diversity": pytest.approx(0.3), "explore": 0.0}
    assert state["columns"]["title"] == "title" and state["columns"]["price"] == "price" and "colour" in state["columns"]["groups"]
    assert (state["items"], state["pictures"], state["store"], state["data"], state["name"]) == (40, 40, True, True, "shop")
    assert "item-knn" in state["offered"] and state["categories"]


def test_the_catalogue_is_found_by_how_words_begin(client: TestClient, shop: Path) -> None:
    items = pl.read_parquet(shop / "shop" / "items.parquet")
    title = items["title"][3]
    word = title.split()[1]
    found = client.get(API + "catalogue", params={"q": word[:3], "k": 40}).json()["items"]
    assert found and all(any(part.startswith(word[:3]) for part in card["title"].lower().replace(",", "").split()) for card in found)
    assert [card["item"] for card in client.get(API + "catalogue", params={"q": items["item"][5]}).json()["items"]] == [items["item"][5]]
    assert client.get(API + "catalogue", params={"q": "(*[" }).json()["items"] == []
    category = items["category"][0]
    assert {card["category"] for card in client.get(API + "catalogue", params={"category": category}).json()["items"]} == {category}
    card = client.get(API + "cards", params={"item": [items["item"][0], "nothing"]}).json()["items"]
    assert [one["item"] for one in card] == [items["item"][0]] and card[0]["price"] == pytest.approx(items["price"][0])
    assert client.get(API + "catalogue", params={"k": 1000}).status_code == 422


def test_pictures_are_small_and_come_by_id_only(client: TestClient, shop: Path) -> None:
    item = pl.read_parquet(shop / "shop" / "items.parquet")["item"][0]
    answer = client.get(API + "picture", params={"item": item, "size": 96})
    assert answer.headers["content-type"] == "image/jpeg" and Image.open(io.BytesIO(answer.content)).size <= (96, 96)
    for other in ("nothing", "../shop/dataset.yaml", f"pictures/{item}.png", str(shop / "shop" / "dataset.yaml")):
        assert client.get(API + "picture", params={"item": other}).status_code == 404
    assert client.get(API + "picture", params={"item": item, "size": 5000}).status_code == 422


def test_pictures_that_are_none_are_none(tmp_path: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Pictures(str(shop / "shop"))
    item = next(iter(kept._files))
    assert item in kept and kept.small(item, 96) is kept.small(item, 96), "the second one comes from memory"
    monkeypatch.setattr(pictures, "MEMORY", 10)
    assert kept.small(item, 240) is not None and not kept._kept, "no room: made anew each time"
    (tmp_path / "text.png").write_text("no picture")
    kept._root, kept._files = tmp_path, {"a": "text.png", "b": "absent.png", "c": "."}
    assert [kept.small(name, 96) for name in "abc"] == [None] * 3
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    kept._files = {"d": "large.png"}
    monkeypatch.setattr("vitrail.data.pictures.PIXELS", 100)
    assert kept.small("d", 96) is None
    monkeypatch.setattr(pictures, "LARGEST", 10)
    assert kept.small("d", 96) is None
    assert len(Pictures(None)) == 0 and len(Pictures(str(tmp_path / "gone"))) == 0


def test_history_is_that_of_the_artifact_and_then_of_the_store(client: TestClient, user: str) -> None:
    before = client.get(API + "history", params={"user": user}).json()
    assert before["known"] and before["live"] == 0 and len(before["items"]) == min(before["events"], 40)
    item = client.get(API + "catalogue", params={"k": 1}).json()["items"][0]["item"]
    assert client.post("/events", json={"user": user, "item": item}).json()["new"] == 1
    after = client.get(API + "history", params={"user": user}).json()
    assert (after["live"], after["events"]) == (1, before["events"] + 1) and after["items"][-1]["item"] == item
    stranger = client.get(API + "history", params={"user": "stranger"}).json()
    assert not stranger["known"] and stranger["items"] == []
    assert client.get(API + "users", params={"q": user}).json()["users"][0]["user"] == user


def test_an_answer_tells_why_and_what_each_stage_did(client: TestClient, user: str) -> None:
    answer = client.post(API + "ask", json={"user": user, "k": 5}).json()
    assert answer["variant"] == "all" and len(answer["items"]) == 5
    row = answer["items"][0]
    assert {source["name"] for source in row["sources"]} <= {"item-knn", "sasrec"} and row["card"]["title"] and row["propensity"] == 1.0
    assert row["why"]["attention_by"] == "sasrec" and row["why"]["history_by"] == "item-knn"
    weights = [one["weight"] for one in row["why"]["attention"]]
    assert weights == sorted(weights, reverse=True) and 0 < sum(weights) <= 1.0001
    assert {one["item"] for one in row["why"]["history"]} <= set(answer["cards"])
    assert any(row["matches"] for row in answer["items"])
    stages = [stage["stage"] for stage in answer["trace"]["stages"]]
    assert stages[0] == "filter" and "fuse" in stages and answer["trace"]["catalogue"] == 40 and answer["trace"]["milliseconds"]["retrieve"] > 0
    assert client.post(API + "ask", json={"k": 5}).status_code == 422


def test_dials_change_the_page_and_versions_stand_side_by_side(client: TestClient, user: str) -> None:
    def page(**more: object) -> list[str]:
        return [row["item"] for row in client.post(API + "ask", json={"user": user, "k": 8, **more}).json()["items"]]

    def unlike(**more: object) -> int:
        return len({row["card"]["category"] for row in client.post(API + "ask", json={"user": user, "k": 8, **more}).json()["items"]})

    assert page(diversity=0.3) == page() and unlike(diversity=1.0) >= unlike(diversity=0.3) >= unlike(diversity=0.0)
    drawn = client.post(API + "ask", json={"user": user, "k": 8, "explore": 1.0}).json()
    assert all(row["propensity"] < 0.5 for row in drawn["items"])
    assert client.post("/recommend", json={"user": user, "diversity": 2}).status_code == 422
    assert [row["item"] for row in client.post("/recommend", json={"user": user, "k": 8, "diversity": 1.0}).json()["items"]] == page(diversity=1.0)
    refused = client.post(API + "ask", json={"user": user, "version": "item-knn"})
    assert refused.status_code == 422 and "no loaded version" in refused.json()["error"]
    client.post("/models", json={"action": "load", "name": "item-knn"})
    single = client.post(API + "ask", json={"user": user, "version": "item-knn", "k": 8, "diversity": 0.9}).json()
    assert single["variant"] == "item-knn" and [stage["stage"] for stage in single["trace"]["stages"]] == ["retrieve item-knn", "arrange mmr"]
    assert any(row["sources"][0]["rank"] != row["rank"] for row in single["items"]), "sources keep the rank without diversity"
    refused = client.post(API + "ask", json={"user": user, "version": "item-knn", "explore": 0.5})
    assert refused.status_code == 422 and refused.json()["error"] == 'The model "item-knn" has no stage that takes "explore": leave it out.'


def test_data_runs_and_rates(client: TestClient, user: str, shop: Path) -> None:
    data = client.get(API + "data").json()
    assert data["facts"]["items"] == 40 and sum(bar["count"] for bar in data["shapes"]["events_per_user"]) <= 60
    assert data["shapes"]["popularity"][-1] == {"items": 1.0, "events": 1.0} and data["shapes"]["over_time"]["bars"]
    assert {one["name"]: one["kind"] for one in data["shapes"]["attributes"]}["price"] == "number"
    runs = client.get(API + "runs").json()
    assert {"item-knn", "sasrec"} <= {run["name"] for run in runs["runs"]}
    assert next(run for run in runs["runs"] if run["name"] == "sasrec")["curve"][0]["epoch"] == 1
    answer = client.post("/recommend", json={"user": user}).json()
    client.post("/events", json={"user": user, "item": answer["items"][0]["item"], "request_id": answer["request_id"]})
    (rate,) = [one for one in client.get(API + "rates").json()["rates"] if one["variant"] == "all"]
    assert rate["requests"] >= 1 and 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1


def test_runs_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    assert read_runs(None) == read_runs(tmp_path / "absent") == {"runs": [], "comparisons": [], "funnels": []}
    for name, text in {"half": "{", "list": "[]", "other": '{"rows": 1}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
        (tmp_path / name / "evaluation.json").write_text(text)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "result.json").write_text(json.dumps({"systems": [{"system": "a", "mean": {}}], "metric": "ndcg@10"}))
    stage = {"stage": "fuse", "candidates": 10.0, "ceiling": 0.5, "metrics": {}}
    measured = {"funnel": "f", "k": 10, "asked": {"rolling": {"queries": 3, "stages": [stage]}}, "milliseconds": {}}
    (tmp_path / "good" / "evaluation.json").write_text(json.dumps(measured))
    (tmp_path / "link").symlink_to(tmp_path / "good")
    found = read_runs(tmp_path)
    assert [one["name"] for one in found["comparisons"]] == ["good"] and [one["funnel"] for one in found["funnels"]] == ["f"]
    (tmp_path / "long" / "artifact").mkdir(parents=True)
    (tmp_path / "long" / "artifact" / "manifest.json").write_text(json.dumps({"system": "x", "split": {"name": "temporal"}}))
    (tmp_path / "long" / "curves.jsonl").write_text("\n".join(json.dumps({"epoch": n}) for n in range(1, 1000)))
    curve = read_runs(tmp_path)["runs"][0]["curve"]
    assert len(curve) <= 302 and curve[0]["epoch"] == 1 and curve[-1]["epoch"] == 999


def test_what_is_in_common_is_told_by_how_telling_it_is() -> None:
    table = pl.DataFrame(
        {"item": list("abcdefghij"), "title": ["Red wool hat 1996", "red cap", *["other"] * 8], "tags": [["x", "y"], ["x"], *[["y"]] * 8], "kind": ["k"] * 10}
    )
    cards = Cards(columns_for_people(table.schema, {"title": "text", "tags": "categories", "kind": "category"}), Pictures(None))
    counts = count_values(table, cards.columns)
    assert counts["tags", "y"] == 9 and counts["tags", "x"] == 2 and counts["word", "red"] == 2 and counts["kind", "k"] == 10
    rows = table.to_dicts()
    (told,) = matching(cards, [rows[0]], [rows[0], rows[1], rows[1]], counts, len(table))
    assert told[:2] == [{"attribute": "tags", "value": "x", "items": 3}, {"attribute": "word", "value": "red", "items": 3}]
    assert {one["value"] for one in told} == {"x", "red", "wool", "hat"}, "neither what most items have nor a number"
    bare = Cards(columns_for_people({"item": pl.String()}, {}), Pictures(None))
    assert matching(bare, [{"item": "a"}], [{"item": "b"}], count_values(pl.DataFrame({"item": ["a"]}), bare.columns), 1) == [[]]


def test_where_there_are_tokens_the_page_is_open_and_its_questions_want_an_admin(shop: Path) -> None:
    from vitrail.serve.tokens import Tokens

    app = create_app(open_answerer(shop / "runs" / "item-knn"), tokens=Tokens.of(text="read:reader,admin:owner"))
    with TestClient(app) as client:
        assert client.get("/studio/").status_code == 200
        assert client.get(API + "state").status_code == 401
        assert client.get(API + "state", headers={"authorization": "Bearer reader"}).status_code == 403
        state = client.get(API + "state", headers={"authorization": "Bearer owner"}).json()
        assert state["versions"][0]["dials"] == {"diversity": 0.0} and state["store"] is False
    closed = create_app(open_answerer(shop / "runs" / "item-knn"), open_admin=False)
    with TestClient(closed) as client:
        assert client.get("/studio/").status_code == 200 and client.get(API + "users").status_code == 403


def test_where_the_data_set_is_gone_the_rest_goes_on(shop: Path) -> None:
    answerer = open_answerer(shop / "runs" / "item-knn")
    answerer.info["data"] = {**answerer.info["data"], "path": str(shop / "gone")}
    with TestClient(create_app(answerer)) as client:
        assert client.get(API + "data").status_code == 404
        state = client.get(API + "state").json()
        assert state["pictures"] == 0 and state["data"] is False
        assert client.get(API + "rates").json() == {"rates": []}
        assert client.post(API + "ask", json={"history": [], "k": 3}).json()["fallback"] == "popular"


def test_the_map_has_a_card_of_each_item(client: TestClient, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = client.get(API + "map").json()
    assert len(told["points"]) == 40 and told["points"][0]["card"]["picture"] is True and told["categories"]
    assert client.get(API + "map").json() == told
    monkeypatch.setattr("vitrail.serve.page.api.Recommender", str)
    answer = client.get(API + "map")
    assert answer.status_code == 404 and "no place on a map" in answer.json()["error"]
