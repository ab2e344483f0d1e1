"""A link opens one order until it expires, and nobody can make one or turn it into another's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.links import PATH, LinkExpired, Links, LinkWrong
from shared.work import OrderId

LINKS = Links(b"k" * 32, "https://track.example/")
NOON_MS = 1_772_532_000_000
order_ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


def test_a_link_opens_its_order_and_leaves_room_in_an_sms() -> None:
    link = LINKS.link(OrderId("A-1001"), NOON_MS)
    assert link.startswith(f"https://track.example{PATH}")
    assert len(link) <= 70
    assert LINKS.read(link.rpartition("/")[2], NOON_MS) == "A-1001"


def test_a_link_expires_and_says_so() -> None:
    token = LINKS.token(OrderId("A-1001"), NOON_MS + 1)
    assert LINKS.read(token, NOON_MS + 1000) == "A-1001"
    with pytest.raises(LinkExpired, match="has expired"):
        LINKS.read(token, NOON_MS + 1001)


@given(order_ids, st.integers(0, 1 << 52))
def test_every_order_comes_back_as_it_went_in(order_id: str, expires_ms: int) -> None:
    assert LINKS.read(LINKS.token(OrderId(order_id), expires_ms), 0) == order_id


@given(order_ids, st.data())
def test_a_token_changed_in_one_place_opens_nothing(order_id: str, data: st.DataObject) -> None:
    token = LINKS.token(OrderId(order_id), NOON_MS)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AQgw09_-.").filter(lambda sign: sign != token[place]))
    with pytest.raises(LinkWrong):
        LINKS.read(token[:place] + other + token[place + 1 :], 0)


@given(st.text(max_size=500) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_garbage_opens_nothing(garbage: str) -> None:
    with pytest.raises(LinkWrong):
        LINKS.read(garbage, 0)


def test_a_link_of_another_hub_opens_nothing_here() -> None:
    with pytest.raises(LinkWrong):
        LINKS.read(Links(b"o" * 32, "").token(OrderId("A-1001"), NOON_MS), 0)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 16"):
        Links(b"short", "")
