import pytest

from vitrail.data.splits import ALIASES, SPLITS, parse_split
from vitrail.errors import SettingError
from vitrail.evaluation.protocol import PROTOCOLS, Protocol, parse_protocol, protocol_for


def test_split_names_lead_to_their_protocols():
    assert protocol_for("leave-last-out") is PROTOCOLS["leave_one_out"]
    assert protocol_for("leave_one_out") is PROTOCOLS["leave_one_out"]
    assert protocol_for("cold-items").candidates == "cold"
    assert protocol_for("mmrec").mask == "train"
    assert protocol_for("ngcf").refit
    assert protocol_for("temporal:valid=0.2").history_at_test == "train+valid"
    assert protocol_for("temporal_rolling") is protocol_for("temporal:valid=0.2,rolling=true") is PROTOCOLS["temporal_rolling"]


def test_every_split_has_a_protocol_and_every_protocol_names_a_split():
    for name in [*SPLITS, *ALIASES]:
        assert parse_split(protocol_for(name).split) == parse_split(name), name


def test_unknown_protocol_says_what_was_meant():
    with pytest.raises(SettingError, match='Did you mean "mmrec"'):
        protocol_for("mmrek")


def test_unknown_field_is_an_error():
    with pytest.raises(SettingError, match='Did you mean "mask"'):
        Protocol.of({"name": "a", "split": "ratio", "maks": "train"})


def test_every_choice_moves_the_fingerprint():
    base = PROTOCOLS["leave_one_out"]
    prints = {base.fingerprint("d", {"seed": 0}), base.fingerprint("e", {"seed": 0}), base.fingerprint("d", {"seed": 1})}
    changes = [{"mask": "train"}, {"ndcg": "ngcf"}, {"recall_denominator": "min(k,targets)"}, {"refit": True}, {"history_at_test": "train"}]
    changes.append({"positive": "value >= 4"})
    prints |= {base.but(change).fingerprint("d", {"seed": 0}) for change in changes}
    assert len(prints) == 3 + len(changes)
    assert base.fingerprint("d", {"seed": 0, "ties": "file"}) == base.fingerprint("d", {"ties": "file", "seed": 0})


def test_description_is_one_line_naming_what_moves_numbers():
    line = PROTOCOLS["mmrec"].describe()
    assert "\n" not in line and "items of train are removed" in line and "NDCG standard" in line
    assert "refit" in PROTOCOLS["ngcf"].describe()


def test_a_named_protocol_is_put_on_another_split():
    for base in PROTOCOLS.values():
        assert parse_protocol(base.name, parse_split(base.split).name) is base
    mmrec = parse_protocol("mmrec", "predefined")
    assert (mmrec.name, mmrec.split, mmrec.mask, mmrec.history_at_test) == ("mmrec", "predefined", "train", "train")
    told = parse_protocol("predefined:mask=none,ndcg=ngcf", "predefined")
    assert (told.name, told.mask, told.ndcg) == ("predefined:mask=none,ndcg=ngcf", "none", "ngcf")
    with pytest.raises(SettingError, match='Did you mean "mask"'):
        parse_protocol("mmrec:maks=train", "predefined")
    with pytest.raises(SettingError, match="'none', 'train'"):
        parse_protocol("mmrec:mask=all", "predefined")
    with pytest.raises(SettingError, match="only cold-items ranks cold items"):
        parse_protocol("cold_items", "ratio")
