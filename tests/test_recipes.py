"""Recipes: every file is sound, measured ones lie where they say, and a run can be killed and gone on with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vitrail import recipes
from vitrail.errors import DataError, SettingError
from vitrail.evaluation import journal
from vitrail.files import read_json
from vitrail.recipes import Band, Recipe
from vitrail.recipes_table import table
from vitrail.systems import registry

ROOT = Path(__file__).resolve().parent.parent
FILES = [file for file in sorted((ROOT / "recipes").glob("*.yaml")) if not recipes.is_funnel(file)]
PAGE = ROOT / "docs" / "results" / "recipes.md"


def quiet(_text: str) -> None:
    pass


@pytest.fixture
def source(tmp_path):
    """60 users who walk through 12 items in a ring, one a line."""
    root = tmp_path / "source"
    root.mkdir()
    lines = [" ".join([f"u{u}", *(f"i{(u + 5 * step) % 12}" for step in range(7))]) for u in range(60)]
    (root / "walks.txt").write_text("\n".join(lines) + "\n")
    return root


def tiny(**changes):
    values = {
        "name": "item-knn.walks",
        "system": "item-knn",
        "data": {"name": "walks", "ingest": {"files": ["walks.txt"], "flags": {"ordered": True}}},
        "split": "leave-last-out",
        "settings": {"k": 5},
        "seeds": [0, 1],
        "accept": {"recall@10": {"low": 0.0, "source": "hand"}},
    }
    return Recipe.of({**values, **changes})


# the recipes of the project


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_is_sound(file):
    recipe = recipes.read(file)
    recipe.check()
    assert recipe.status != "stale", "its settings changed after it was measured: run it again with --write"
    assert recipe.status != "outside" or recipe.differences, "a number outside its band needs a stated reason"
    assert recipe.status != "draft" or recipe.heavy or recipe.not_checked, "it is quick, so it must be measured"
    assert recipe.published or recipe.differences, "a published number, or a sentence that there is none"
    for metric in [*recipe.accept, *(name for row in recipe.published for name in row.metrics)]:
        assert metric in recipe.metrics, f"{metric} is judged but not measured"
    if recipe.selection is not None and recipe.selection.tried:
        best = max(recipe.selection.tried, key=lambda row: row[recipe.selection.metric])
        assert all(row in recipe.settings.items() for row in best.items() if row[0] in recipe.settings), "the settings are not the best on validation"


def test_funnel_files_stand_among_them_and_are_told_apart(tmp_path):
    (tmp_path / "a.yaml").write_text("# a comment\n\nfunnel: a\nretrieve: [{system: ease}]\n")
    assert recipes.is_funnel(tmp_path / "a.yaml") and recipes.read_all(tmp_path) == []
    assert recipes.is_funnel(ROOT / "recipes" / "funnel.ml-100k.yaml") and not any(recipes.is_funnel(file) for file in FILES)


def test_there_are_recipes():
    assert {file.stem for file in FILES} >= {"popular.beauty", "item-knn.beauty", "item-knn.beauty.refit", "ease.ml-100k", "sasrec.beauty", "sasrec.beauty.bce"}


def test_one_name_is_one_data_set():
    made, vectors = {}, {}
    for recipe in recipes.read_all(ROOT / "recipes"):
        plain = recipe.data.model_copy(update={"content": {}})
        assert made.setdefault(recipe.data.name, plain) == plain
        for name, encoded in recipe.data.content.items():
            assert vectors.setdefault((recipe.data.name, name), encoded) == encoded, "one name is one set of vectors"


def test_systems_called_measured_have_a_number_or_are_listed_as_waiting():
    known = recipes.read_all(ROOT / "recipes")
    waiting = PAGE.read_text().partition("## Not measured")[2]
    for name in registry.names():
        own = [recipe for recipe in known if recipe.system == name]
        if registry.card(name).status == "measured":
            assert own, f'system "{name}" is called measured and has no recipe'
            assert any(recipe.measured for recipe in own) or any(f"`{recipe.name}`" in waiting for recipe in own)


def test_the_page_of_results_is_that_of_the_recipes():
    assert PAGE.read_text() == table(recipes.read_all(ROOT / "recipes")), "run: python benchmarks/reproduce.py --table"


# running one


def test_a_recipe_is_measured_seed_by_seed(source, tmp_path):
    said = []
    measured = recipes.reproduce(tiny(), data_root=source, work=tmp_path / "runs", say=said.append)
    assert measured.seeds == [0, 1] and measured.queries == 60 and measured.test_evaluations == 2
    assert measured.metrics["recall@10"].mean == 1.0 and measured.metrics["recall@10"].sd == 0.0  # 12 items, 6 of them masked
    assert 0 < measured.validation["ndcg@10"].mean <= 1 and "leave_one_out" in measured.protocol
    assert read_json(tmp_path / "runs" / "item-knn.walks" / "result.json") == measured.model_dump(mode="json")
    assert any("60 users" in text for text in said)
    done = tiny().model_copy(update={"measured": measured})
    assert done.status == "measured" and done.verdict("recall@10") == "ok"
    assert "1.0000" in table([done]) and "`item-knn.walks`" in table([done])


def test_a_killed_run_goes_on_and_looks_at_the_test_part_once_a_seed(source, tmp_path, monkeypatch):
    import vitrail.train.fit as module

    real, work = module.fit, tmp_path / "runs"

    def dies_at_seed_1(*args, **kwargs):
        if kwargs["seed"] == 1:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "fit", dies_at_seed_1)
    with pytest.raises(KeyboardInterrupt):
        recipes.reproduce(tiny(), data_root=source, work=work, say=quiet)
    assert read_json(work / "item-knn.walks" / "result.json")["seeds"] == [0]

    fitted = []

    def counts(*args, **kwargs):
        fitted.append(kwargs["seed"])
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "fit", counts)
    measured = recipes.reproduce(tiny(), data_root=source, work=work, say=quiet)
    again = recipes.reproduce(tiny(), data_root=source, work=work, say=quiet)
    assert fitted == [1] and measured.seeds == [0, 1] and again.metrics == measured.metrics
    assert journal.count(work / "data" / "walks") == 2


def test_a_trained_system_stopped_in_the_middle_gives_the_same_number(source, tmp_path, monkeypatch):
    recipe = tiny(name="bpr-mf.walks", system="bpr-mf", settings={"dim": 4, "epochs": 6, "batch": 64, "patience": 0, "checkpoint_seconds": 0}, seeds=[3])
    whole = recipes.reproduce(recipe, data_root=source, work=tmp_path / "whole", say=quiet)
    cls, steps = registry.find("bpr-mf"), []
    real = cls.loss

    def stops(self, batch):
        steps.append(1)
        if len(steps) == 18:  # in epoch 4 of 6, 5 steps each
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(cls, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        recipes.reproduce(recipe, data_root=source, work=tmp_path / "cut", say=quiet)
    resumed = recipes.reproduce(recipe, data_root=source, work=tmp_path / "cut", say=quiet)
    assert len(steps) < 18 + 30, "it began anew"
    assert (resumed.metrics, resumed.validation, resumed.epochs) == (whole.metrics, whole.validation, whole.epochs)


def test_the_interval_stands_about_the_mean_of_the_seeds():
    spread = recipes._spread([0.1, 0.3], [[0.05, 0.15], [0.2, 0.4]])
    assert (spread.mean, spread.ci) == (0.2, (0.125, 0.275))
    assert recipes._spread([0.1]).ci is None


def test_runs_of_other_settings_are_not_mixed_in(source, tmp_path):
    work = tmp_path / "runs"
    recipes.reproduce(tiny(seeds=[0]), data_root=source, work=work, say=quiet)
    with pytest.raises(SettingError, match="other settings or data of this recipe"):
        recipes.reproduce(tiny(settings={"k": 4}), data_root=source, work=work, say=quiet)
    other = {"name": "walks", "ingest": {"files": ["walks.txt"]}}
    with pytest.raises(DataError, match="ingested with other settings"):
        recipes.reproduce(tiny(data=other, name="item-knn.other", split="ratio"), data_root=source, work=work, say=quiet)


def test_absent_data_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"walks\.txt: put the data there, or say with the variable VITRAIL_DATA"):
        recipes.reproduce(tiny(), data_root=tmp_path, work=tmp_path / "runs", say=quiet)
    assert not (tmp_path / "runs" / "data" / "walks").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"system": "item-kn"}, 'no system "item-kn". Did you mean "item-knn"'),
        ({"settings": {"kk": 5}}, 'Unknown key "kk" in settings of recipe item-knn.walks'),
        ({"split": "leave-last"}, 'no split "leave-last"'),
        ({"metrics": ["recal@10"]}, "recal"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_read(changes, sentence, tmp_path):
    with pytest.raises(SettingError) as error:
        recipes.reproduce(tiny(**changes), data_root=tmp_path, work=tmp_path, say=quiet)
    assert sentence in str(error.value)


# the file


def test_bands_are_judged_on_four_digits():
    assert Band(low=0.0114, high=0.0116, source="").holds(0.01136) and not Band(low=0.0114, source="").holds(0.01134)
    assert str(Band(low=0.06, source="")) == ">= 0.0600"


def test_measured_is_the_only_thing_written(source, tmp_path):
    measured = recipes.reproduce(tiny(), data_root=source, work=tmp_path / "runs", say=quiet)
    file = tmp_path / "item-knn.walks.yaml"
    head = (
        "# why this is here\nname: item-knn.walks\nsystem: item-knn  # a remark\ndata: {name: walks, ingest: {files: [walks.txt], flags: {ordered: true}}}\n"
        "split: leave-last-out\nsettings: {k: 5}\nseeds: [0, 1]\n"
    )
    file.write_text(head)
    for _ in range(2):
        recipes.store(file, measured)
        assert file.read_text().startswith(head + "measured:\n") and file.read_text().count("measured:\n") == 1
        assert recipes.read(file).measured == measured
    assert recipes.read(file).status == "measured"
    file.write_text(file.read_text().replace("k: 5", "k: 6"))
    assert recipes.read(file).status == "stale" and "changed since" in table([recipes.read(file)])
    file.write_text(file.read_text() + "seeds: [0]\n")
    before = file.read_text()
    with pytest.raises(SettingError, match='"seeds" stands below "measured"'):
        recipes.store(file, measured)
    assert file.read_text() == before


def test_a_recipe_file_is_read_strictly(tmp_path):
    file = tmp_path / "a.b.yaml"
    file.write_text("name: a.c\nsystem: popular\ndata: {name: d, ingest: {}}\nsplit: ratio\n")
    with pytest.raises(SettingError, match=r'names its recipe "a\.c"'):
        recipes.read(file)
    file.write_text("name: a.b\nsystem: popular\ndata: {name: d, ingest: {flags: {orderd: true}}}\nsplit: ratio\n")
    with pytest.raises(SettingError, match=r'orderd.*Did you mean "ordered"'):
        recipes.read(file)


def test_the_script_names_what_it_does_not_know(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("reproduce_script", ROOT / "benchmarks" / "reproduce.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "ease.ml-100"])
    assert script.main() == 2
    assert 'no recipe "ease.ml-100". Did you mean "ease.ml-100k"' in capsys.readouterr().err
