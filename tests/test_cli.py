"""The command line as a person and as a program meet it: help, errors as sentences, and every verb in both forms of output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from vitrail import cli, interrupt
from vitrail.cli import answer, complete, learn, show
from vitrail.errors import DataError, ResourceError


def vitrail(*words: Any) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="vitrail")


def told(*words: Any) -> str:
    """What a command prints for people; it must succeed."""
    result = vitrail(*words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def document(*words: Any) -> Any:
    """The one JSON document a command prints."""
    result = vitrail(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words: Any, code: int = 2) -> str:
    """The one sentence a command is refused with; nothing is on standard output."""
    result = vitrail(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    return str(result.stderr.strip())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shop and two runs, made by the command line."""
    home = tmp_path_factory.mktemp("cli")
    size = ("--users", 120, "--items", 60, "--events", 2400, "--no-pictures", "--quiet")
    told("data", "simulate", "--out", home / "shop", *size)
    for system, settings in (("popular", ()), ("item-knn", ("--set", "k=20"))):
        told("fit", system, "--data", home / "shop", "--out", home / system, *settings, "--quiet")
    return home


# the door


def process(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "from vitrail.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env={**os.environ, **variables}, check=False)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    started = time.perf_counter()
    result = process("--help")
    seconds = time.perf_counter() - started
    assert result.returncode == 0
    verbs = ("demo", "data", "systems", "fit", "evaluate", "recommend", "similar", "serve", "doctor")
    assert all(re.search(rf"^ +{verb} ", result.stdout, re.MULTILINE) for verb in verbs)
    assert seconds < 2.0, "0.5 s is the aim; this bound leaves room for a busy machine"
    look = "import sys, vitrail.cli; print([m for m in ('torch', 'polars', 'numpy', 'scipy', 'fastapi', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_version_and_no_verb() -> None:
    assert re.fullmatch(r"vitrail \d+\.\d+\.\d+\n", told("--version"))
    assert "Usage" in vitrail().output


@pytest.mark.parametrize(("words", "meant"), [(["recomend"], "recommend"), (["data", "ingst"], "ingest"), (["fit", "popular", "--dta", "x"], "--data")])
def test_a_typo_is_told_what_was_meant(words: list[str], meant: str) -> None:
    result = vitrail(*words)
    assert result.exit_code == 2
    assert meant in result.stderr
    assert "Traceback" not in result.output


def test_every_verb_that_prints_has_json() -> None:
    for verb in ("systems", "fit", "evaluate", "recommend", "similar", "doctor", "demo", "data ingest", "data describe", "data simulate"):
        assert "--json" in told(*verb.split(), "--help"), verb


# what goes wrong


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    def broken() -> None:
        raise error

    monkeypatch.setattr("vitrail.doctor.examine", broken)
    return vitrail("doctor")


def test_errors_end_in_a_sentence_and_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRAIL_DEBUG", raising=False)
    cases: list[tuple[BaseException, int, str]] = [
        (DataError("This is wrong: mend it."), 2, "error: This is wrong: mend it.\n"),
        (ResourceError("No room."), 3, "error: No room.\n"),
        (MemoryError(), 3, "ran out of memory"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 2, "x.csv: No such file"),
        (OSError(28, "No space left on device"), 3, "No space left"),
        (KeyError("surprise\nin two lines"), 1, "vitrail doctor"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ]
    for error, code, sentence in cases:
        result = fail_with(monkeypatch, error)
        assert result.exit_code == code
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_DEBUG", "1")
    assert "Traceback" in fail_with(monkeypatch, KeyError("surprise")).stderr


def start(*words: Any) -> subprocess.Popen[str]:
    # a shell starts what it runs in the background with SIGINT ignored, and so would be whatever a test run in the background starts
    code = """if True:
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from vitrail import __main__, interrupt
        listen = interrupt._listen
        interrupt._listen = lambda: (listen(), print("listening", flush=True))
        __main__.main()
        """
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_reader_that_leaves_early_is_no_error(home: Path) -> None:
    writer = start("data", "describe", home / "shop", "--json")
    assert writer.stdout is not None
    assert writer.stderr is not None
    assert writer.stdout.readline() == "listening\n"
    writer.stdout.close()
    assert writer.stderr.read() == ""
    assert writer.wait(300) == 0
    writer.stderr.close()


@pytest.mark.parametrize("when", ["at the start", "at work"])
def test_ctrl_c_is_one_sentence(tmp_path: Path, when: str) -> None:
    size = ("--users", 60_000, "--events", 18_000_000, "--no-pictures", "--quiet")
    running = start("data", "simulate", "--out", tmp_path / "big", *size)
    assert running.stdout is not None and running.stdout.readline() == "listening\n"
    while when == "at work" and not list(tmp_path.iterdir()):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 130
    assert said == f"{interrupt.SENTENCE}\n"
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


# systems


def test_systems_are_listed_and_explained() -> None:
    listed = document("systems")
    names = [one["name"] for one in listed]
    assert names == sorted(names)
    assert {"popular", "item-knn", "ease", "lightgcn", "sasrec"} <= set(names)
    assert all({"name", "stage", "family", "status", "paper", "needs", "can"} <= set(one) for one in listed)
    table = told("systems")
    assert all(name in table for name in names)
    one = document("systems", "sasrec")
    assert one["needs"]["order"] == "sequence"
    assert one["can"]["new_users"] is True
    setting = one["settings"]["dropout"]
    assert setting["type"] == "number"
    assert "<" in setting["bounds"]
    assert one["settings"]["lr"]["meaning"] == "Learning rate of Adam."
    assert not [key for key, facts in one["settings"].items() if not facts["meaning"]], "a setting without a meaning"
    told_one = told("systems", "sasrec")
    assert all(key in told_one for key in one["settings"])


def test_an_unknown_system_is_told_what_was_meant(home: Path) -> None:
    assert 'Did you mean "sasrec"' in refused("systems", "sasrek")
    assert 'Did you mean "popular"' in refused("fit", "poplar", "--data", home / "shop", "--out", home / "no")
    assert not (home / "no").exists()


def test_plugins_from_a_file(tmp_path: Path) -> None:
    assert "no file" in refused("systems", "--system", tmp_path / "absent.py")
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("x = 1\n")
    broken.write_text("import nothing_of_this_name\n")
    assert "registers no system" in refused("systems", "--system", empty)
    assert "cannot be imported" in refused("fit", "x", "--system", broken, "--print-config")


# fit and evaluate


def test_settings_merge_file_then_flags(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("dim: 8\nlr: 1e-2\n")
    merged = document("fit", "sasrec", "--config", file, "--set", "dim=16", "--print-config")
    assert (merged["dim"], merged["lr"]) == (16, 0.01)
    printed = yaml.safe_load(told("fit", "sasrec", "--config", file, "--set", "dim=16", "--print-config"))
    assert printed == merged
    file.write_text(yaml.safe_dump(printed))
    assert document("fit", "sasrec", "--config", file, "--print-config") == merged, "what is printed can be read again"
    assert 'Did you mean "dim"' in refused("fit", "sasrec", "--set", "dimm=3", "--print-config")
    assert "dropout" in refused("fit", "sasrec", "--set", "dropout=2", "--print-config")
    assert "key=value" in refused("fit", "sasrec", "--set", "dim", "--print-config")
    assert "no file" in refused("fit", "sasrec", "--config", tmp_path / "absent.yaml", "--print-config")
    assert "--data" in refused("fit", "sasrec", "--out", tmp_path / "run")
    assert "--out" in refused("fit", "sasrec", "--data", home / "shop")


def test_fit_tells_what_it_did(home: Path, tmp_path: Path) -> None:
    result = vitrail("fit", "popular", "--data", home / "shop", "--out", tmp_path / "run", "--split", "leave-last-out", "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["system"] == "popular"
    assert summary["run"] == str(tmp_path / "run")
    assert 0 <= summary["validation"]["metrics"]["ndcg@10"] <= 1
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["seed"] == 3
    text = told("fit", "popular", "--data", home / "shop", "--out", tmp_path / "run", "--overwrite")
    assert "protocol" in text
    assert f"vitrail evaluate {tmp_path / 'run'}" in text
    assert "exists already" in refused("fit", "popular", "--data", home / "shop", "--out", tmp_path / "run")
    assert "no split" in refused("fit", "popular", "--data", home / "shop", "--out", tmp_path / "other", "--split", "temporall")
    assert "no data set" in refused("fit", "popular", "--data", tmp_path / "nowhere", "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_evaluate_in_both_forms(home: Path, tmp_path: Path) -> None:
    facts = document("evaluate", home / "item-knn")
    assert {"system", "data", "fingerprint", "part", "protocol", "users", "metrics", "ci", "slices", "seconds"} <= set(facts)
    low, high = facts["ci"]["ndcg@10"]
    assert low <= facts["metrics"]["ndcg@10"] <= high
    text = told("evaluate", home / "item-knn", "--metrics", "ndcg@10,recall@5", "--report", tmp_path / "page.html")
    assert f"{facts['metrics']['ndcg@10']:.4f}" in text
    assert "95 % interval" in text
    assert "recall@5" in text
    assert "mrr" not in text
    assert facts["fingerprint"] in text
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert document("evaluate", home / "item-knn", "--part", "valid")["part"] == "valid"
    assert "validation" not in refused("evaluate", home / "item-knn", "--part", "tset")
    assert "Did you mean" in refused("evaluate", home / "item-knn", "--metrics", "ndgc@10")
    assert "no fitted system" in refused("evaluate", home / "nowhere")


# recommend and similar


def test_recommend_in_both_forms(home: Path) -> None:
    found = document("recommend", home / "item-knn", "--user", "u007", "-k", 4)
    assert list(found) == ["user", "request_id", "fallback", "items"]
    assert found["fallback"] is None
    assert [row["rank"] for row in found["items"]] == [1, 2, 3, 4]
    assert set(found["items"][0]) == {"item", "rank", "score", "sources", "why"}
    text = told("recommend", home / "item-knn", "--user", "u007", "-k", 4)
    items = pl.read_parquet(home / "shop" / "items.parquet")
    first = items.filter(pl.col("item") == found["items"][0]["item"]).row(0, named=True)
    assert all(str(first[name]) in text for name in ("item", "title", "category"))
    assert "price" in text
    spread = document("recommend", home / "item-knn", "--user", "u007", "-k", 4, "--diversity", 1)
    assert spread["items"][0]["item"] == found["items"][0]["item"], "the first item is the most relevant one at any diversity"
    groups = [{items.filter(pl.col("item") == row["item"])["category"][0] for row in page["items"]} for page in (found, spread)]
    assert len(groups[1]) >= len(groups[0])


def test_recommend_from_a_history_and_a_filter(home: Path) -> None:
    items = pl.read_parquet(home / "shop" / "items.parquet")
    history = ",".join(items["item"][:3])
    category = items["category"][5]
    found = document("recommend", home / "item-knn", "--history", history, "-k", 60, "--filter", f'category == "{category}"')
    allowed = set(items.filter(pl.col("category") == category)["item"]) - set(items["item"][:3])
    assert found["user"] is None
    assert {row["item"] for row in found["items"]} == allowed
    seen = document("recommend", home / "item-knn", "--history", history, "-k", 60, "--include-seen")
    assert len(seen["items"]) == 60
    for day_zero in (("--history", ""), ("--history", "nothing"), ("--user", "nobody")):
        assert document("recommend", home / "item-knn", *day_zero)["fallback"] == "popular"
        assert "popular items" in told("recommend", home / "item-knn", *day_zero)


def test_recommend_refusals(home: Path, tmp_path: Path) -> None:
    run = home / "item-knn"
    assert "one of" in refused("recommend", run)
    assert "one of" in refused("recommend", run, "--user", "a", "--history", "b")
    assert "--out" in refused("recommend", run, "--users", "all")
    assert "--users" in refused("recommend", run, "--user", "u001", "--out", tmp_path / "x.parquet")
    assert "--resume" in refused("recommend", run, "--user", "u001", "--resume")
    assert "shape one answer" in refused("recommend", run, "--users", "all", "--out", tmp_path / "x.parquet", "--diversity", 0.5)
    assert 'no stage that takes "explore"' in refused("recommend", run, "--user", "u001", "--explore", 0.5)
    assert "k is 0" in refused("recommend", run, "--user", "u001", "-k", 0)
    assert 'Did you mean "price"' in refused("recommend", run, "--user", "u001", "--filter", "prise < 3")
    assert "No item passes" in refused("recommend", run, "--user", "u001", "--filter", "price < -1")
    assert "no file" in refused("recommend", run, "--users", tmp_path / "absent.txt", "--out", tmp_path / "x.parquet")
    assert "no fitted system" in refused("recommend", tmp_path, "--user", "u001")
    assert list(tmp_path.iterdir()) == []


def test_recommend_for_everybody(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    facts = document("recommend", home / "popular", "--users", "all", "--out", out, "-k", 3, "--quiet")
    table = pl.read_parquet(out)
    assert (facts["users"], facts["rows"]) == (120, len(table))
    assert table.group_by("user").len()["len"].unique().to_list() == [3]
    file = tmp_path / "users.txt"
    file.write_bytes("\ufeffu003\r\nu001\r\n\r\nnobody\r\n".encode())
    assert "6 recommendations for 3 users" in told("recommend", home / "popular", "--users", file, "--out", out, "-k", 2, "--quiet")
    assert pl.read_parquet(out)["user"].unique(maintain_order=True).to_list() == ["u003", "u001", "nobody"]


def test_files_of_users(tmp_path: Path) -> None:
    table = tmp_path / "users.parquet"
    pl.DataFrame({"user": ["b", None, "a"]}).write_parquet(table)
    assert answer.read_users(table) == ["b", "a"]
    pl.DataFrame({"person": ["b"]}).write_parquet(table)
    for content, sentence in ((None, 'no column "user"'), (b"PAR1junk", "not readable Parquet")):
        if content:
            table.write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            answer.read_users(table)
    text = tmp_path / "users.txt"
    for content, sentence in ((b"\n\n", "holds no user id"), (b"\xff\xfe\x00", "not UTF-8")):
        text.write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            answer.read_users(text)


def test_histories_are_split_at_commas_outside_quotes() -> None:
    assert answer.split_ids(["a, b,c"]) == ["a", "b", "c"]
    assert answer.split_ids(['"x,y",z', "w"]) == ["x,y", "z", "w"]
    assert answer.split_ids([""]) == []


def test_similar_in_both_forms(home: Path) -> None:
    item = pl.read_parquet(home / "shop" / "items.parquet")["item"][0]
    found = document("similar", home / "item-knn", "--item", item, "-k", 3)
    assert found["item"] == item
    assert len(found["items"]) == 3
    assert item not in [row["item"] for row in found["items"]]
    assert set(found["items"][0]) == {"item", "rank", "score", "sources", "why"}
    assert found["items"][0]["item"] in told("similar", home / "item-knn", "--item", item, "-k", 3)
    assert 'no item "nothing"' in refused("similar", home / "item-knn", "--item", "nothing")


# serve


def test_serve_hands_on_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("vitrail.serve.server.serve", lambda *words, **names: seen.update(words=words, names=names))
    monkeypatch.setenv("VITRAIL_TOKEN", "hidden")
    told("serve", "run", "--port", 9000, "--max-k", 7, "--store", "none", "--history-event", "buy", "--history-event", "click", "--budget-ms", 50)
    assert seen["words"] == (Path("run"), "127.0.0.1", 9000, "hidden", 1)
    assert {name: seen["names"][name] for name in ("max_k", "store", "budget_ms", "rate")} == {"max_k": 7, "store": "none", "budget_ms": 50, "rate": 0}
    assert list(seen["names"]["history_events"]) == ["buy", "click"]
    monkeypatch.undo()
    assert "no fitted system" in refused("serve", "nowhere", "--port", 0)
    assert "port" in refused("serve", "nowhere", "--max-k", 0).replace("max_k", "port")


# completion and output


def test_completion_knows_systems_and_splits() -> None:
    from vitrail.data.splits import SPLITS
    from vitrail.systems.registry import names

    assert [name for name in names() if not name.startswith("test-")] == complete.systems("")
    assert complete.systems("sas") == ["sasrec"]
    assert set(complete.SPLITS) == set(SPLITS)
    assert complete.splits("leave") == ["leave-last-out"]
    asked = process("fit", _VITRAIL_COMPLETE="complete_bash", COMP_WORDS="vitrail fit sasr", COMP_CWORD="2")
    assert asked.returncode == 0


def test_what_data_hold_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("a",), [("[red]x[/red] \x1b[31mred\x07",)])
    show.line("\x1b]0;title\x07")
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    show.emit({"a": float("nan"), "b": Path("x"), "c": {3, 1}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": "x", "c": [1, 3]}


def test_types_in_words() -> None:
    from typing import Annotated, Literal

    cases = {"whole number": int, "a | b": Literal["a", "b"], "number | none": float | None, "list of number": tuple[float, float], "text": Annotated[str, 1]}
    assert {words: learn._type_name(annotation) for words, annotation in cases.items()} == {words: words for words in cases}
