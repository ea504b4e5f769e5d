"""Splits: how they are written, and who meets what."""

from __future__ import annotations

import pytest

from umbel.cluster.serving.split import key_hash, parse_splits, place_of
from umbel.scheduler.errors import UsageError


def test_without_a_split_one_alias_has_all() -> None:
    splits = parse_splits([], "champion")
    assert splits.aliases == ["champion"]
    assert splits.of("DEU").arm(0.999999) == ("champion", 1.0)


def test_groups_may_have_their_own() -> None:
    splits = parse_splits(["champion=90, challenger=10", "DEU:champion=50,trial=50"], "champion")
    assert splits.aliases == ["champion", "challenger", "trial"]
    assert splits.of("FRA").arm(0.9) == ("challenger", 0.1)
    assert splits.of("DEU").arm(0.9) == ("trial", 0.5)
    assert splits.of("FRA").as_percent() == {"champion": 90.0, "challenger": 10.0}


def test_thirds_add_up() -> None:
    splits = parse_splits(["a=33.3333333,b=33.3333333,c=33.3333334"], "a")
    assert splits.default.arm(0.99999999999)[0] == "c"


@pytest.mark.parametrize(
    "text",
    ["champion=90,challenger=9", "champion=90", "champion", "champion=x", "a=50,a=50", "a=150,b=-50", "", "a/b=100"],
)
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_splits([text], "champion")


def test_a_colon_for_an_equals_sign_is_seen() -> None:
    with pytest.raises(UsageError) as refused:
        parse_splits(["champion:90"], "champion")
    assert (refused.value.got, refused.value.hint) == ("champion:90", "write champion=90")


def test_one_split_for_one_group() -> None:
    with pytest.raises(UsageError, match="two splits"):
        parse_splits(["a=100", "b=100"], "a")
    with pytest.raises(UsageError, match="two splits"):
        parse_splits(["DEU:a=100", "DEU:b=100"], "a")


def test_keys_spread_evenly_and_stay() -> None:
    split = parse_splits(["champion=90,challenger=10"], "champion").default
    arms = [split.arm(place_of(f"user{n}", "salt"))[0] for n in range(10_000)]
    assert abs(arms.count("challenger") - 1000) < 150  # five standard deviations
    assert arms == [split.arm(place_of(f"user{n}", "salt"))[0] for n in range(10_000)]
    others = [split.arm(place_of(f"user{n}", "another salt"))[0] for n in range(10_000)]
    both = sum(a == b == "challenger" for a, b in zip(arms, others, strict=True))
    assert both < 200  # independent: about 100


def test_a_widened_share_keeps_those_who_were_in_it() -> None:
    narrow = parse_splits(["champion=90,challenger=10"], "champion").default
    wide = parse_splits(["champion=70,challenger=30"], "champion").default
    for n in range(1000):
        place = place_of(f"user{n}", "salt")
        if narrow.arm(place)[0] == "challenger":
            assert wide.arm(place)[0] == "challenger"


def test_places_do_not_change_between_versions_of_umbel() -> None:
    assert place_of("user1", "umbel/gdp") == 0.7523579598806781
    assert key_hash("user1", "umbel/gdp") == "e14a1e3d49ce406f"
