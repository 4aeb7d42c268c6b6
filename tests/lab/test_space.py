import pytest

from vitrail.config import PositiveFloat, Rate, Settings
from vitrail.data.schema import DatasetInfo
from vitrail.errors import SettingError
from vitrail.lab.space import Choices, Range, as_begun, as_json, begun_with, for_system, size, space_of
from vitrail.systems import registry

TIMED, UNTIMED = DatasetInfo(name="shop", order="timestamp"), DatasetInfo(name="shop", order="none")


def space(name, info=TIMED, fixed=(), asked=None, items=500, **settings):
    cls = registry.find(name)
    return space_of(cls, cls.Config(**settings), info, items, fixed=fixed, asked=asked)


def test_every_system_has_a_space_its_settings_allow():
    for name in registry.names():
        for key, dimension in space(name).items():
            assert key in registry.find(name).Config.model_fields and isinstance(dimension, Range | Choices)


def test_penalties_are_tried_around_their_own_default():
    ease, bpr = space("ease")["l2"], space("bpr-mf")["l2"]
    assert 250 in ease and ease.low > 1 and 1e-4 in bpr and bpr.high < 1 and ease.log and bpr.log


def test_sizes_and_what_is_fixed_are_left_alone():
    found = space("bpr-mf", fixed=("lr",))
    assert "dim" not in found and "batch" not in found and "lr" not in found and "l2" in found


def test_half_life_needs_clock_times():
    assert None in space("popular")["half_life"] and "half_life" not in space("popular", UNTIMED)


def test_neighbours_are_no_more_than_items():
    assert space("item-knn", items=60)["k"].high == 60


def test_asked_replaces_adds_and_removes():
    found = space("bpr-mf", asked={"lr": None, "dim": {"low": 8, "high": 64}, "loss": ["bpr", "bce"], "l2": {"low": 0.1, "high": 1, "log": True}})
    assert "lr" not in found and found["dim"].whole and found["loss"].choices == ["bpr", "bce"] and found["l2"].high == 1


def test_a_system_may_bring_its_own():
    cls = registry.find("bpr-mf")

    class Own(cls):
        space = {"l2": {"low": 1.0, "high": 2.0}, "lr": None}

        class Config(Settings):
            l2: PositiveFloat = 1.5
            lr: PositiveFloat = 0.1
            dropout: Rate = 0.0

    found = space_of(Own, Own.Config(), TIMED, 10)
    assert found["l2"].high == 2 and set(found) == {"l2", "dropout"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"dimm": [1, 2]}, 'Did you mean "dim"'),
        ({"l2": {"low": 2, "high": 1}}, "less than high"),
        ({"l2": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"l2": {"low": -1, "high": 1}}, "l2"),
        ({"loss": ["bpr", "bprr"]}, "loss"),
        ({"l2": [1]}, "at least two"),
        ({"l2": 3}, "write"),
        ({"l2": {"lo": 1, "high": 2}}, '"low" is missing'),
    ],
)
def test_bad_spaces_are_a_sentence(asked, says):
    with pytest.raises(SettingError, match=says) as error:
        space("bpr-mf", asked=asked)
    assert "\n" not in str(error.value)


def test_what_is_said_for_one_of_several_systems():
    fields, names = ("dim", "lr"), ("a", "b")
    asked = {"a.dim": 1, "b": {"dim": 2}, "lr": 3, "other": 4}
    assert for_system(asked, "a", fields, names) == {"dim": 1, "lr": 3}
    assert for_system(asked, "b", fields, names) == {"dim": 2, "lr": 3}
    assert for_system({"dim": 1, "a.dim": 2}, "a", fields, names) == {"dim": 2} == for_system({"a.dim": 2, "dim": 1}, "a", fields, names)
    with pytest.raises(SettingError, match="no system in this comparison"):
        for_system({"c.dim": 1}, "a", fields, names)


def test_what_was_begun_goes_on_with_the_ranges_it_began_with(tmp_path):
    now = space("simgcl", asked={"lr": [0.1, 0.2], "noise": None})
    assert now["contrast"].low == 1e-5 and now["contrast"].log
    begun = as_json(now) | {"contrast": {"low": 0.01, "high": 3.0, "log": True}, "lr": {"low": 1.0, "high": 2.0}, "l2": {"choices": [1, 2]}}
    found = as_begun(now, begun, ("lr", "noise"))
    assert found == {**now, "contrast": Range(low=0.01, high=3, log=True), "l2": Choices(choices=[1, 2])} and found["layers"].whole
    assert begun_with(tmp_path) == {}


def test_size_and_text():
    assert size({}) == 0 and size({"a": Choices(choices=[1, None]), "b": Range(low=1, high=3, whole=True)}) == 6
    assert size({"a": Range(low=0, high=1)}) == float("inf")
    assert str(Range(low=1, high=3, whole=True)) == "1 to 3, whole" and str(Choices(choices=[None, True, 2])) == "one of none, true, 2"
    assert Range(low=0.1, high=1).tidy(0.123456) == 0.1235 and Range(low=1, high=9, whole=True).tidy(2.0) == 2
    assert as_json({"a": Range(low=0, high=1)}) == {"a": {"low": 0.0, "high": 1.0}}
