"""The demo: it runs, may be run again, takes nobody's folder, and its systems beat the floor on a shop that has tastes."""

import json
import urllib.request

import pytest

import vitrail
from vitrail import demo, demo_studio
from vitrail.errors import DataError, ResourceError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small demo, made from inside its parent folder so that its paths are relative; and what it printed."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setitem(demo.SYSTEMS, "lightgcn", {**demo.SYSTEMS["lightgcn"], "epochs": 8})
        patch.setitem(demo.SYSTEMS, "sasrec", {**demo.SYSTEMS["sasrec"], "epochs": 3})
        result = demo.run("demo", users=500, studio=False, quiet=True)
    return home, result


def test_the_page_holds_everything(made):
    home, result = made
    page = (home / result["page"]).read_text(encoding="utf-8")
    assert all(name in page for name in demo.SYSTEMS)
    assert result["user"] in page and "NDCG@10" in page and "<svg" in page
    assert page.count('src="data:image/jpeg') >= 3 * demo.SHOWN, "pictures of the items are missing"
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page, "the page must need nothing else"


def test_personal_systems_beat_the_floor(made):
    compared = made[1]["comparison"]
    by_name = {row["system"]: row["metrics"]["ndcg@10"] for row in compared["rows"]}
    assert set(by_name) == set(demo.SYSTEMS)
    assert by_name["item-knn"] > 1.5 * by_name[demo.FLOOR] and by_name["lightgcn"] > 1.5 * by_name[demo.FLOOR]
    assert all(len(row["ci"]["ndcg@10"]) == 2 for row in compared["rows"]) and compared["tests"]


def test_what_it_left_can_be_used(made):
    home, result = made
    json.dumps(result)
    model = vitrail.load(home / result["runs"]["sasrec"])
    assert model.recommend(users=[result["user"]], k=3).height == 3
    assert vitrail.read(home / "demo" / "shop").info.counts["users"] == 500
    assert len(result["recommended"]) == demo.SHOWN


def test_it_may_be_run_again_and_leaves_the_files_of_others(made, monkeypatch, capsys):
    home = made[0]
    monkeypatch.chdir(home)
    monkeypatch.setattr(demo, "SYSTEMS", {"popular": {}, "item-knn": demo.SYSTEMS["item-knn"]})
    (home / "demo" / "notes.txt").write_text("mine")
    again = demo.run("demo", users=100, studio=False)
    assert (home / "demo" / "notes.txt").read_text() == "mine"
    assert set(again["runs"]) == {"popular", "item-knn"} and not (home / "demo" / "runs" / "sasrec").exists()
    told = capsys.readouterr().out
    pieces = ("100 people, 40 items, 2,400 events", "95 % intervals", "item-knn minus popular", "demo/index.html", "recommend demo/runs/", "serve demo/runs/")
    assert not [piece for piece in pieces if piece not in told]
    assert again["user"] in told and str(again["recommended"][0]["item"]) in told


def test_the_same_seed_gives_the_same_demo(made, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SYSTEMS", {"popular": {}, "item-knn": demo.SYSTEMS["item-knn"]})
    one, two = (demo.run(tmp_path / name, users=60, studio=False, quiet=True) for name in ("a", "b"))
    assert one["recommended"] == two["recommended"] and one["user"] == two["user"]
    assert one["comparison"]["rows"] == two["comparison"]["rows"]


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(DataError, match="no demo made"):
        demo.run(tmp_path / "photos", quiet=True)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(DataError, match="is a file"):
        demo.run(tmp_path / "photos" / "cat.jpg", quiet=True)


def test_quiet_prints_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SYSTEMS", {"popular": {}, "item-knn": {}})
    demo.run(tmp_path / "demo", users=60, studio=False, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_it_ends_with_the_studio(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SYSTEMS", {"popular": {}, "item-knn": {}})
    monkeypatch.setattr(demo_studio, "BROWSERS", ())
    asked = {}

    def look(address, place):
        with urllib.request.urlopen(address + "api/state", timeout=30) as answer:
            asked.update(json.load(answer))
        place.write_bytes(b"a picture")
        return place

    monkeypatch.setattr(demo_studio, "screenshot", look)
    result = demo.run(tmp_path / "demo", users=60)
    told = capsys.readouterr().out
    assert result["studio"]["address"] in told and result["studio"]["screenshot"] in told and "stopped again" in told
    assert asked["current"] == "window" and asked["versions"][0]["kind"] == "funnel" and "item-knn" in asked["offered"]
    with pytest.raises(OSError):
        urllib.request.urlopen(result["studio"]["address"], timeout=5)
    assert json.loads((tmp_path / "demo" / "runs" / "comparison" / "result.json").read_text())["systems"][0]["ci"]


def test_no_browser_no_picture_and_a_service_that_does_not_start_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_studio, "BROWSERS", ("no-such-browser",))
    assert demo_studio.screenshot("http://127.0.0.1:1/", tmp_path / "a.png") is None
    monkeypatch.setattr(demo_studio, "BROWSERS", ("false",))
    assert demo_studio.screenshot("http://127.0.0.1:1/", tmp_path / "a.png") is None
    fake = tmp_path / "browser"
    fake.write_text('#!/bin/sh\nfor word in "$@"; do case "$word" in --screenshot=*) echo picture > "${word#--screenshot=}";; esac; done\n')
    fake.chmod(0o755)
    monkeypatch.setattr(demo_studio, "BROWSERS", (str(fake),))
    assert demo_studio.screenshot("http://127.0.0.1:1/", tmp_path / "a.png") == tmp_path / "a.png"
    with pytest.raises(ResourceError, match="did not start"):
        demo_studio.Service(tmp_path / "nothing", tmp_path / "log")


def test_in_a_terminal_it_stays_until_it_is_interrupted(tmp_path, monkeypatch):
    class Running:
        address = "http://127.0.0.1:1"

        def __init__(self, path, log):
            self.process, self.stopped = self, False

        def wait(self):
            raise KeyboardInterrupt

        def stop(self):
            self.stopped = True

    monkeypatch.setattr(demo_studio, "Service", Running)
    monkeypatch.setattr(demo_studio, "BROWSERS", ())
    told = []
    shown = demo_studio.show(tmp_path, tmp_path / "window", told.append, stay=True)
    assert shown == {"address": "http://127.0.0.1:1/studio/", "screenshot": None} and told[-2:] == ["it answers until Ctrl-C", "stopped"]
