"""Errors: the hint that says what was meant, and exit codes."""

from __future__ import annotations

import pytest

from vitrail.errors import ArtifactError, DataError, ResourceError, SettingError, VitrailError, did_you_mean, unknown

SYSTEMS = ["popular", "ItemKNN", "ease", "lightgcn", "sasrec"]


@pytest.mark.parametrize(("name", "meant"), [("sasrek", "sasrec"), ("SASREC", "sasrec"), ("itemknn", "ItemKNN"), ("lightgnc", "lightgcn")])
def test_a_near_miss_is_recognised_in_any_case(name: str, meant: str) -> None:
    assert did_you_mean(name, SYSTEMS) == f' Did you mean "{meant}"?'


def test_a_far_miss_lists_what_there_is() -> None:
    assert did_you_mean("transformer", SYSTEMS) == " Known: ItemKNN, ease, lightgcn, popular, sasrec."
    assert did_you_mean("x", []) == ""


def test_unknown_is_a_setting_error() -> None:
    error = unknown("system", "sasrek", SYSTEMS)
    assert isinstance(error, SettingError) and str(error) == 'There is no system "sasrek". Did you mean "sasrec"?'


def test_exit_codes_are_not_zero() -> None:
    assert [kind.exit_code for kind in (VitrailError, DataError, SettingError, ArtifactError, ResourceError)] == [2, 2, 2, 2, 3]
