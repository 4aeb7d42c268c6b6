"""The bench beside the peers: plans, arithmetic, adapters' jobs and tables. No peer is installed here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vitrail.errors import SettingError, VitrailError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def importable():
    """benchmarks/ and benchmarks/peers/ can be imported from, as when a script in them is started."""
    places = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
    sys.path[:0] = places
    yield
    for place in places:
        sys.path.remove(place)


@pytest.fixture(scope="module")
def plan():
    from peers.plan import read_plan

    return read_plan()


def test_every_row_is_consistent_with_its_system_and_environment(plan):
    from peers.environments import read_environments

    from vitrail.data.splits import parse_split
    from vitrail.systems import registry

    environments = read_environments()
    for row in plan.rows:
        cls = registry.find(row.system)
        values = row.settings | ({"epochs": row.epochs} if cls.trained else {})
        cls.Config.of(values, where=row.name)
        parse_split(row.split)
        plan.data_of(row)
        assert row.peer in environments and row.goals and (BENCHMARKS / "peers" / f"run_{row.peer}.py").exists()
        assert row.mode != "fit" or row.peer in ("implicit", "cornac")
    assert all(pin.why and "==" in pin.pin for environment in environments.values() for pin in environment.install)
    peers = {"recbole": 8, "rectools": 4, "implicit": 3, "cornac": 1}
    assert {peer: sum(row.peer == peer for row in plan.rows) for peer in environments} == peers


def test_rows_are_chosen_by_name_or_beginning(plan):
    from peers.plan import choose

    assert [row.name for row in choose(plan, ["cornac.ease.ml-100k"])] == ["cornac.ease.ml-100k"]
    assert {row.peer for row in choose(plan, ["implicit"])} == {"implicit"} and len(choose(plan, [])) == len(plan.rows)
    with pytest.raises(SettingError, match="There is no row"):
        choose(plan, ["recbole.sasrec.beautiful"])


def test_bad_plans_are_refused_in_a_sentence(tmp_path, plan):
    from peers.plan import Row, read_plan

    values = plan.rows[0].model_dump()
    with pytest.raises(SettingError, match="about nothing that is measured"):
        Row.of(values | {"goals": {"speed": 2}})
    with pytest.raises(SettingError, match=r"PEER\.MODEL\.DATA"):
        Row.of(values | {"name": "bpr"})
    row = "{name: implicit.als.x, peer: implicit, model: ALS, system: ials, data: x, split: ratio, mode: fit}"
    for rows, data, said in ((f"[{row}, {row}]", "{x: {}}", "two rows"), (f"[{row}]", "{}", "not described")):
        (tmp_path / "rows.yaml").write_text(f"data: {data}\nrows: {rows}\n")
        with pytest.raises(SettingError, match=said):
            read_plan(tmp_path / "rows.yaml")


def test_options_and_code_change_a_row_and_its_identity(plan, tmp_path):
    from peers.plan import Options, apply, choose, code_hash, identity

    row = choose(plan, ["recbole.sasrec.beauty"])[0]
    changed = apply(row, Options(steps=7, repeats=1, cap=10, converge=False))
    assert (changed.steps, changed.repeats, changed.cap, changed.converge) == (7, 1, 10, 0)
    assert apply(row, Options()) == row
    asked = [(row, Options(), ["a==1"]), (changed, Options(), ["a==1"]), (row, Options(epoch=True), ["a==1"]), (row, Options(), ["a==2"])]
    assert len({identity(*three, code) for three in asked for code in "ab"}) == 8
    assert identity(row.but({"cap": 9, "goals": {}}), Options(), ["a==1"], "a") == identity(row, Options(), ["a==1"], "a")  # moves no number
    (tmp_path / "a.py").write_text("1")
    before = code_hash(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert code_hash(tmp_path) != before


def record(ours_wall=2.0, peer_wall=12.0, **more):
    from peers.plan import summary

    ours = {"epoch": summary([{"wall": ours_wall, "cpu": 1.0}]), "peak_mb": 400, "targets": 100, "metrics": {"ndcg@10": 0.3, "recall@10": 0.2}}
    peer = {"epoch": summary([{"wall": peer_wall, "cpu": 9.0}]), "peak_mb": 1200, "targets": 200, "metrics": {"ndcg@10": 0.2, "recall@10": 0.2}}
    return {"ours": ours, "peer": peer, **more}


def test_ratios_are_in_our_favour_above_one():
    from peers.plan import ratio, ratios, summary

    assert summary([{"wall": 1, "cpu": 2}, {"wall": 3, "cpu": 4}, {"wall": 9, "cpu": 5}], 10)["wall"] == {"median": 30, "min": 10, "max": 90}
    assert ratio(None, 2) is None and ratio(0, 2) is None and ratio(2, None) is None and ratio(2, 5) == 2.5
    found = ratios(record(), per_target=False)
    assert found["epoch"] == {"wall": 6.0, "cpu": 9.0} and found["memory"]["value"] == 3.0 and found["ndcg"]["value"] == 1.5
    assert "evaluate" not in found and "converged" not in found
    assert ratios(record(), per_target=True)["epoch"] == {"wall": 3.0, "cpu": 4.5}  # the peer's epoch asks twice as often


def test_goals_are_met_missed_or_say_why_they_were_not_measured(plan):
    from peers.plan import ratios, verdicts

    row = plan.rows[0].but({"goals": {"epoch": 5, "memory": 4, "load": 5, "converged": 1}})
    done = record()
    done["ours"]["converged"], done["peer"]["converged"] = {"ndcg@10": 0.19}, {"ndcg@10": 0.2, "ndcg@10 standard error": 0.01}
    lines = verdicts(row, done | {"ratios": ratios(done, False)})
    assert [line["met"] for line in lines] == [True, False, False, True]
    assert lines[2]["why"] == "it was not measured in this run" and lines[3]["goal"] == ">= 0.9"  # two standard errors of the peer
    assert all(line["why"] == "no wheel" and not line["met"] for line in verdicts(row, {"why": "no wheel"}))


def test_a_job_is_checked_before_anything_is_imported(tmp_path):
    import _desk

    job = {"peer": "implicit", "model": "ALS", "data": "d", "split": "s", "cut": "ratio", "epochs": 1, "settings": {}, "threads": 1, "seed": 0}
    file = tmp_path / "job.json"
    for values, said in ((job, ""), (job | {"threads": "2"}, '"threads" as int'), (job | {"model": "SVD"}, "no model"), (job | {"more": 1}, "unknown key")):
        file.write_text(json.dumps(values))
        if said:
            with pytest.raises(_desk.JobError, match=said):
                _desk.read_job([str(file)], {"ALS"})
        else:
            assert _desk.read_job([str(file)], {"ALS"}) == job
    with pytest.raises(_desk.JobError, match="Usage"):
        _desk.read_job([], {"ALS"})
    for peer in ("implicit", "cornac"):  # neither is installed here, and an unknown model is told without it
        file.write_text(json.dumps(job | {"model": "nonsense"}))
        done = subprocess.run([sys.executable, str(BENCHMARKS / "peers" / f"run_{peer}.py"), str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "There is no model" in done.stderr


ADAPTER = """
import _desk
class Side:
    def __init__(self):
        self.desk = _desk.Desk({"load": lambda order: {"rows": 3}, "build": self.fail}, self.train, self.validate, self.keep, self.back)
        self.values, self.said = iter([.1, .3, .2, .2, .2]), []
    def fail(self, order):
        raise ValueError("no such\\ntable")
    def train(self):
        while True:
            for _ in range(4):
                self.desk.batch_done()
            self.desk.epoch_done()
    def validate(self):
        return next(self.values)
    def keep(self):
        self.said.append("keep")
    def back(self):
        assert self.said == ["keep", "keep"]
Side().desk.serve()
"""


def test_a_desk_lets_a_trainer_go_on_epoch_by_epoch(tmp_path):
    import time

    from peers.side import Side, SideFailed

    script = tmp_path / "adapter.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(BENCHMARKS / 'peers')!r})\n{ADAPTER}")
    with Side("toy", Path(sys.executable), str(script), {"threads": 1}, tmp_path, {}, time.monotonic() + 60) as side:
        assert side.ask("load")["rows"] == 3 and side.peak_mb > 0
        assert len(side.ask("steps", n=2)["batches"]) == 2
        found = side.ask("epochs", n=2)
        assert len(found["epochs"]) == 2 and len(found["batches"]) == 8 and found["stopped"] == "epochs"
        assert side.ask("load")["rows"] == 3  # while the trainer waits
        found = side.ask("converge", seconds=60, patience=3)
        assert found["stopped"] == "early stop" and found["best"] == 0.3 and found["epochs_done"] == 7
        with pytest.raises(SideFailed, match="toy failed at build: ValueError: no such table"):
            side.ask("build")
        with pytest.raises(SideFailed, match="does not know the order"):
            side.ask("dance")
    (tmp_path / "ends.py").write_text("import sys; sys.exit('no library')")
    with Side("toy", Path(sys.executable), str(tmp_path / "ends.py"), {"threads": 1}, tmp_path, {}, time.monotonic() + 60) as side, pytest.raises(
        SideFailed, match="toy ended at load: no library"
    ):
        side.ask("load")
    with Side("toy", Path(sys.executable), str(script), {"threads": 1}, tmp_path, {}, 0.0) as side, pytest.raises(SideFailed, match="time of the row was over"):
        side.ask("load")


def test_lists_and_their_masks():
    import _lists

    scores = np.array([[0.1, 0.9, 0.5, 0.7], [4, 3, 2, 1]])
    assert _lists.best(scores, 2).tolist() == [[1, 3], [0, 1]]
    codes = _lists.first_allowed(np.array([[1, 3, 2], [0, 1, 2]]), np.array([0, 1, 3]), np.array([3, 0, 2]), 4, 2)
    assert codes.tolist() == [[1, 2], [1, -1]]
    assert _lists.first_allowed(np.array([[1, 0]]), np.array([0, 0]), np.array([], dtype=int), 4, 1).tolist() == [[1]]
    assert _lists.ndcg(np.array([[2, 0], [1, -1]]), np.array([0, 1, 2]), np.array([0, 3]), 4) == pytest.approx(0.5 / np.log2(3))
    rows, part = _lists.span(np.array([0, 2, 2, 5]), 1, 3)
    assert rows.tolist() == [1, 1, 1] and (part.start, part.stop) == (2, 5)


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    """A small simulated data set, cut both ways."""
    from vitrail.data.simulate import SimulatorSettings, simulate
    from vitrail.train.fit import cut

    place = tmp_path_factory.mktemp("handed")
    data = simulate(place / "shop", settings=SimulatorSettings(users=40, items=25, events=600, pictures=False))
    return data, {name: cut(data, name, False) for name in ("leave-last-out", "ratio")}


def test_the_split_is_handed_over_whole(handed):
    from peers.handover import arrays_of, atomic_files

    data, cuts = handed
    for name, (split, _, _) in cuts.items():
        arrays = arrays_of(split)
        assert arrays["sizes"].tolist() == [len(data.user_ids), len(data.item_ids)] and len(arrays["query_users"]) == len(split.test)
        files = atomic_files(arrays, "split", ordered=name == "leave-last-out")
        lines = {file: text.splitlines() for file, text in files.items()}
        if name == "ratio":
            assert sorted(lines) == ["split.test.inter", "split.train.inter", "split.valid.inter"]
            assert len(lines["split.train.inter"]) - 1 == len(split.train)
        else:
            rows = [line.split("\t") for line in lines["split.inter"][1:]]
            assert len(rows) == len(split.known) + len(split.test)
            user = int(arrays["query_users"][0])
            own = [int(row[1]) for row in rows if int(row[0]) == user]
            assert own[-1] == arrays["target_items"][0] and own[:-1] == split.known.items[split.known.indptr[user] : split.known.indptr[user + 1]].tolist()


def test_the_judge_equals_the_evaluator(handed):
    from peers.handover import Judge

    data, cuts = handed
    split, _, protocol = cuts["ratio"]
    judge = Judge(data, split, protocol)
    targets = np.full((len(split.test), 10), -1)
    for query in range(len(split.test)):
        own = split.test.target_items[split.test.target_indptr[query] : split.test.target_indptr[query + 1]][:10]
        targets[query, : len(own)] = own
    assert judge(targets)["ndcg@10"] == pytest.approx(1.0) and judge(np.full_like(targets, -1))["recall@10"] == 0.0


def test_targets_of_an_epoch():
    from run_vitrail import targets

    from vitrail.systems import registry

    lengths = np.array([0, 1, 4, 60])
    shifted = registry.find("sasrec").Config(length=50)
    assert targets(shifted, lengths) == 3 + 50 and targets(shifted.but({"target": "prefix"}), lengths) == 3 + 59
    cloze = registry.find("bert4rec").Config(length=50, cloze_share=0.2, cloze_last=0.5)
    assert targets(cloze, lengths) == int(0.5 * (1 + 10) + 0.5 * 2) and targets(registry.find("bpr-mf").Config(), lengths) == 65


def test_the_page_tells_of_every_row_and_of_failure():
    from peers.page import page, short
    from peers.plan import ratios

    done = record(row="recbole.bpr.ml-100k", status="done", differences=["They start elsewhere."], load_before=[1.0], load_after=[2.0], versions={"torch": "2"})
    done["ours"]["epoch"]["estimated"] = "the median of 3 batches"
    done["ratios"] = ratios(done, False)
    failed = {"row": "cornac.ease.ml-100k", "status": "failed", "why": "No wheel.", "differences": [], "load_before": [1.0]}
    whole = {
        "date": "2026-01-01", "machine": {"processor": "p", "usable_cores": 2}, "settings": {"threads": 2}, "load_before": [1.0], "load_after": [1.0],
        "goals": [{"what": "w", "goal": ">= 1", "measured": None, "met": False, "why": "No wheel."}],
        "results": {"rows": {"a": done, "b": failed}, "environments": {"recbole": "recbole==1.2.1", "cornac": "cornac==3.0.1"}},
    }  # fmt: skip
    text = page(whole)
    assert "**Failed:** No wheel." in text and "They start elsewhere." in text and "MISSED: No wheel." in text and "cornac==3.0.1" in text
    assert "`python benchmarks/bench_peers.py --only recbole.bpr.ml-100k`" in text and "an estimate" in text
    table = short(whole)
    assert "recbole.bpr.ml-100k (estimate)" in table and "6.00x" in table and "cornac.ease.ml-100k (failed)" in table
    slower = record(ours_wall=12.0, peer_wall=6.0, row="x", status="done", differences=[], load_before=[1.0])
    slower["ratios"] = ratios(slower, False)
    assert "**0.50x**" in short({"results": {"rows": {"x": slower}}})


def test_the_script_lists_rows_and_refuses_strangers(monkeypatch, capsys, plan):
    spec = importlib.util.spec_from_file_location("bench_peers_script", BENCHMARKS / "bench_peers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["bench_peers.py", "--list", "--only", "rectools"])
    assert script.main() == 0 and len(capsys.readouterr().out.split()) == 4
    monkeypatch.setattr(sys, "argv", ["bench_peers.py", "--only", "lenskit"])
    assert script.main() == 2 and "There is no row" in capsys.readouterr().err


def test_a_row_that_cannot_start_is_kept_as_failed(tmp_path, plan, monkeypatch):
    from peers import measure as module
    from peers.plan import Options

    monkeypatch.setattr(module, "make", lambda *arguments: (_ for _ in ()).throw(VitrailError("No wheel for this machine.")))
    found = module.measure(plan.rows[0], plan, Options(), {plan.rows[0].peer: module_environment()}, tmp_path, tmp_path)
    assert found["status"] == "failed" and found["why"] == "No wheel for this machine."
    assert json.loads((tmp_path / "rows" / f"{plan.rows[0].name}.json").read_text())["status"] == "failed"


def module_environment():
    from peers.environments import read_environments

    return read_environments()["recbole"]
