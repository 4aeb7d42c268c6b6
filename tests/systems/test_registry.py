"""Systems are found in the package, in a file of yours, and in installed plug-ins."""

import subprocess
import sys

import pytest

import vitrail.systems
from vitrail.errors import SettingError
from vitrail.systems import protocols, registry
from vitrail.systems.base import _REGISTRY
from vitrail.testing import battery

PLUGIN = '''
"""Newest: mine."""
import torch
from vitrail.systems.base import system
from vitrail.systems.skeletons import Table

@system("{name}", stage="retrieve", family="mine")
class Mine(Table):
    """Counts who has both."""

    def fit(self, interactions):
        X = interactions.matrix()
        return (X.T @ X).tocsr()
'''


@pytest.fixture
def forget():
    """Systems registered by a test are forgotten after it."""
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def test_every_system_has_a_whole_card():
    for name in registry.names():
        card = registry.card(name)
        assert card.name == name and card.summary and card.skeleton != "System"
        assert registry.find(name).Config.model_config.get("extra") == "forbid"
        undocumented = [key for key, field in registry.find(name).Config.model_fields.items() if not field.description]
        assert not undocumented, f"{name}: settings without a meaning: {undocumented}"


def test_every_system_file_says_where_it_comes_from():
    for name in registry.names():
        cls = registry.find(name)
        doc = sys.modules[cls.__module__].__doc__ or ""
        assert "umbers" in doc, f"{name}: the first lines must name its recipe"
        assert registry.card(name).paper is None or str(registry.card(name).year) in doc or registry.card(name).paper in doc


def test_an_unknown_system_is_a_sentence():
    with pytest.raises(SettingError, match='Did you mean "sasrec"'):
        registry.find("sasrek")


def test_a_file_of_yours_runs_the_battery(tmp_path, forget):
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="mine"))
    assert registry.load_file(tmp_path / "mine.py") == ["mine"]
    battery("mine", tmp_path)


def test_files_that_are_no_systems_are_sentences(tmp_path, forget):
    for content, words in (("x = 1", "registers no system"), ("import nothing_there", "cannot be imported"), ("def (", "cannot be imported")):
        (tmp_path / "bad.py").write_text(content)
        with pytest.raises(SettingError, match=words):
            registry.load_file(tmp_path / "bad.py")
    with pytest.raises(SettingError, match="no file"):
        registry.load_file(tmp_path / "absent.py")
    (tmp_path / "bad.txt").write_text("x")
    with pytest.raises(SettingError, match="not a Python file"):
        registry.load_file(tmp_path / "bad.txt")


def test_entry_points_of_installed_packages(tmp_path):
    (tmp_path / "theirs.py").write_text(PLUGIN.format(name="theirs"))
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\ntheirs = theirs\nbroken = absent_module\n")
    code = "from vitrail.systems import registry; print(registry.names())"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert "plug-in" in done.stderr and "broken" in done.stderr
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\ntheirs = theirs\n")
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert "'theirs'" in done.stdout, done.stderr


def test_a_system_is_found_without_the_files_of_the_others():
    code = "import sys; from vitrail.systems import registry; registry.find('bpr-mf'); print('vitrail.systems.collaborative.ease' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    for strange in ("ids", "no.such", "../ease"):
        with pytest.raises(SettingError, match="system"):
            registry.find(strange)


def test_the_other_skeletons_have_a_shape():
    class Two:
        def interests(self, batch): ...

    assert isinstance(Two(), protocols.MultiInterest) and not isinstance(Two(), protocols.Codec)
    assert vitrail.systems.__doc__


def test_cards_are_of_all_that_stands_in_a_funnel():
    cards = {card.name: card for card in registry.cards()}
    assert list(cards) == sorted(cards) and {"retrieve", "arrange", "explore"} <= {card.stage for card in cards.values()}
    assert set(registry.names()) < set(cards)
    for name in ("ease", "mmr", "thompson"):
        card, config = registry.part(name)
        assert card == cards[name] and config.model_fields
