"""The tracking page, asked by real requests of a real hub with a van of a few lines on the real wire."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_hub.links import PURPOSE, Links, LinkWrong
from cloud_hub.traces import SWEEP
from cloud_hub.web.feed import Feed
from cloud_hub.web.track.town import Town
from deploy.stack import Stack
from shared import topics
from shared.citymap import CityMap, shipped_city
from shared.messages import Arrived, HeadingTo, PlanTaken, ShiftChanged, Visited, WorkAmended
from shared.quantities import EpochMs, Position
from shared.signing import Signer
from shared.steps import Row
from shared.wire import TelemetryBatch, encode_telemetry
from shared.work import OrderId, Outcome, Proof, Stop, Visit
from tests.shells.hub_parts import HubProcess, StandInAgent, some_orders, start_broker

FORM = "application/x-www-form-urlencoded"
FAR_OFF_MS = 4_000_000_000_000
LILAC = "<b>behind the lilac</b> & 'left'"
STRICT = (
    "default-src 'none'; style-src 'sha256-", "script-src 'sha256-", "form-action 'self'", "base-uri 'none'",
    "frame-ancestors 'none'",
)  # fmt: skip


class Street:
    """One hub, one van under way with eight stops, and the customers' links."""

    def __init__(self, hub: HubProcess, van: StandInAgent, folder: Path) -> None:
        self.hub, self.van, self.folder = hub, van, folder
        self.stops: list[Stop] = list(van.wait_plan().stops)
        key = Signer.from_file(hub.key).secret_for(PURPOSE)
        self.links = Links(key, f"http://127.0.0.1:{hub.port}")
        self._tokens: dict[str, str] = {}

    def order(self, place: int) -> OrderId:
        """The order served so many stops into the plan."""
        return self.stops[place].order_id

    def token(self, order_id: str) -> str:
        if order_id not in self._tokens:
            self._tokens[order_id] = self.hub.http.post(f"/api/orders/{order_id}/link").json()["token"]
        return self._tokens[order_id]

    def page(self, order_id: str, language: str = "en") -> httpx.Response:
        return self.hub.http.get(f"/t/{self.token(order_id)}", params={"lang": language})

    def say(self, order_id: str, language: str = "en", **form: str) -> httpx.Response:
        """Send a form as a browser does, and follow to the page that answers it."""
        path = f"/t/{self.token(order_id)}"
        return self.hub.http.post(path, params={"lang": language}, data=form, follow_redirects=True)

    def state(self, order_id: str, **params: str) -> dict[str, Any]:
        answer = self.hub.http.get(f"/t/{self.token(order_id)}/state", params=params)
        assert answer.status_code == 200
        read: dict[str, Any] = answer.json()
        return read


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """A street for all tests of this page: each test has stops of its own, counted from the end of the route."""
    folder = tmp_path_factory.mktemp("track")
    with Stack(folder / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), folder)
        orders = some_orders(14)
        orders[0] |= {"service": "signature"}
        with StandInAgent(hub) as van:
            hub.plan_day(orders)
            plan = van.wait_plan()
            van.say(PlanTaken(plan.plan_version), ShiftChanged("begun"))
            van.wait_acked()
            yield Street(hub, van, folder)


def words_of(page: httpx.Response) -> str:
    """The page's text without its markup."""
    inside = re.sub(r"(?s)<(style|script).*?</\1>", " ", page.text)
    return " ".join(re.sub(r"<[^>]+>", " ", inside).split())


# Who is let in.


def test_a_link_shows_the_window_told_and_keeps_the_page_to_itself(street: Street) -> None:
    order_id = street.order(-1)
    page = street.page(order_id)
    assert page.status_code == 200
    opens, closes = re.findall(r"<span>(\d\d:\d\d)</span>", page.text)
    promise = next(p for p in street.hub.get("/api/promises") if p["order_id"] == order_id)
    assert (closes > opens, street.state(order_id)["window_ms"]) == (True, promise["told_ms"])
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "noindex" in page.headers["x-robots-tag"]
    assert [part for part in STRICT if part not in page.headers["content-security-policy"]] == []


def test_nothing_on_the_page_comes_from_or_leads_to_another_site(street: Street) -> None:
    page = street.page(street.order(0)).text
    assert [
        url for url in re.findall(r"(?:src|href|action|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", page) if "//" in url
    ] == []


def test_a_link_with_any_bit_flipped_opens_nothing_and_says_the_same(street: Street) -> None:
    token = street.token(street.order(-1))
    flipped = [
        token[:place] + chr(ord(sign) ^ 1 << bit) + token[place + 1 :]
        for place, sign in enumerate(token)
        for bit in range(8)
    ]
    assert [one for one in flipped if opens(street.links, one)] == []
    asked = [one for one in flipped if re.fullmatch(r"[\w.-]+", one, re.ASCII)][::8]
    answers = {(a.status_code, a.text) for a in (street.hub.http.get(f"/t/{one}") for one in asked)}
    assert [status for status, _ in answers] == [404]


def opens(links: Links, token: str) -> bool:
    """Whether this token opens anything."""
    try:
        links.read(token, 0)
    except LinkWrong:
        return False
    return True


def test_a_link_opens_its_own_order_and_no_other(street: Street) -> None:
    one, other = street.token(street.order(-1)), street.token(street.order(-2))
    mixed = f"{other.partition('.')[0]}.{one.partition('.')[2]}"
    assert street.hub.http.get(f"/t/{mixed}").status_code == 404
    assert street.order(-2) not in street.hub.http.get(f"/t/{one}").text


@pytest.mark.parametrize(
    ("path", "method"), [("", "GET"), ("/state", "GET"), ("", "POST")], ids=["page", "state", "form"]
)
def test_an_expired_link_is_gone_in_the_readers_language(street: Street, path: str, method: str) -> None:
    over = street.links.token(street.order(-1), street.hub.clock.now_ms() - 1_000)
    answer = street.hub.http.request(method, f"/t/{over}{path}", headers={"Accept-Language": "fi-FI,fi;q=0.9"})
    assert answer.status_code == 410
    assert path or "Tämä linkki ei ole enää voimassa" in answer.text


def test_a_link_to_an_order_nobody_knows_is_gone_and_never_an_error(street: Street) -> None:
    assert street.hub.http.get(f"/t/{street.links.token(OrderId('none'), FAR_OFF_MS)}").status_code == 410
    strange = street.links.token(OrderId("../\x00<b>ä"), FAR_OFF_MS)
    assert street.hub.http.get(f"/t/{strange}").status_code == 410


def test_a_forgotten_customer_can_be_followed_by_nobody(street: Street) -> None:
    street.hub.http.post("/api/orders", json=[some_orders(1)[0] | {"order_id": "F-1", "customer_ref": "C-9"}])
    token = street.token("F-1")
    assert street.hub.http.get(f"/t/{token}").status_code == 200
    forgotten = street.hub.http.post("/api/customers/C-9/forget", json={"by": "anna", "even_open": True})
    assert forgotten.status_code == 200, forgotten.text
    assert street.hub.http.get(f"/t/{token}").status_code == 410
    assert street.hub.http.post(f"/t/{token}", data={"wish": "door_code", "code": "1"}).status_code == 410
    assert street.hub.http.post("/api/orders/F-1/link").status_code == 410


def test_no_drawing_of_a_forgotten_customers_door_is_kept() -> None:
    town, feed = Town(CityMap.load(shipped_city())), Feed()
    feed.when_forgotten(town.forget)
    door = Position(60.1699, 24.9384)
    assert town.drawing(door, door, "t", "you", "van").startswith("<svg")
    feed.publish([Row("stops", "stop-1", b"{}")])
    assert town.drawing.cache_info().currsize == 1
    feed.publish([Row(SWEEP, "", b"{}")])
    assert town.drawing.cache_info().currsize == 0


def test_another_sites_page_cannot_speak_for_a_customer(street: Street) -> None:
    answer = street.hub.http.post(
        f"/t/{street.token(street.order(-1))}", data={"wish": "opt_out"}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403


@given(token=st.text(max_size=60))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_text_opens_nothing(street: Street, token: str) -> None:
    assert street.hub.http.get(f"/t/{quote(token, safe='')}").status_code == 404


def test_the_link_under_a_mail_leads_to_the_page_or_to_a_page_that_says_why_not(street: Street) -> None:
    token = street.token(street.order(0))
    led = street.hub.http.get(f"/t/{token}/stop", follow_redirects=True)
    assert (led.status_code, led.url.path) == (200, f"/t/{token}")
    closed = street.hub.http.get(f"/t/{token}x/stop", params={"lang": "fi"})
    assert (closed.status_code, closed.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert closed.text == street.hub.http.get(f"/t/{token}x", params={"lang": "fi"}).text


# What is said, and what comes of it.


def test_who_is_not_home_until_an_hour_is_answered_at_once_and_the_window_moves(street: Street) -> None:
    order_id, stop = street.order(-1), street.stops[-1]
    page = street.say(order_id, wish="not_home_until", until="13:00")
    assert page.status_code == 200
    assert "Not before 13:00" in words_of(page)
    assert re.search(r"Done\. We come between 1[345]:\d\d and 1[45]:\d\d, and tell the driver\.", words_of(page))
    assert "You asked for it" in words_of(page)
    street.van.wait(lambda: stop.stop_id in amended(street, lambda _: True), "the van has the amended stop")
    (wish,) = street.hub.get("/api/wishes", order_id=order_id)
    assert (wish["effect"], wish["is_done"], wish["wish"]["type"]) == ("not_before", True, "not_home_until")
    decision = street.hub.get(f"/api/decisions/{wish['decision_id']}")
    assert decision["kind"] == "customer_wish"


def amended(street: Street, fits: Callable[[Stop], bool]) -> dict[str, Stop]:
    """The stops the van was told to replace, by id."""
    changes = [change for change in street.van.of(WorkAmended) for change in change.stops]
    return {stop.stop_id: stop for stop in changes if fits(stop)}


def test_an_hour_too_late_for_the_day_is_not_possible_and_another_day_is_offered(street: Street) -> None:
    page = street.say(street.order(-2), wish="not_home_until", until="14:50")
    assert "Not possible. That is later than we can come on that day. Choose another day below." in words_of(page)
    assert re.findall(r'name="day" value="(\S+)"', page.text)[0] == "2026-03-04"


def test_what_a_customer_writes_is_shown_as_text_and_reaches_the_driver_as_said(street: Street) -> None:
    order_id, stop = street.order(-3), street.stops[-3]
    page = street.say(order_id, wish="safe_place", where=LILAC)
    assert "&lt;b&gt;behind the lilac&lt;/b&gt; &amp; &#39;left&#39;" in page.text
    assert "<b>behind" not in page.text
    street.van.wait(lambda: stop.stop_id in amended(street, lambda s: s.safe_place == LILAC), "the van has the place")


def test_a_parcel_to_be_signed_for_is_not_left_and_says_so_in_finnish(street: Street) -> None:
    page = street.say("A-000", "fi", wish="safe_place", where="vajaan")
    assert "Ei onnistu. Tämä paketti luovutetaan vain allekirjoitusta vastaan" in words_of(page)


def test_another_day_is_granted_and_the_visit_leaves_the_van(street: Street) -> None:
    order_id, stop = street.order(-4), street.stops[-4]
    page = street.say(order_id, wish="other_day", day="2026-03-05")
    assert "It stays with us and comes Thursday 5 March, 09:00\u201315:00." in words_of(page)
    withdrawn = lambda: any(stop.stop_id in change.withdrawn for change in street.van.of(WorkAmended))  # noqa: E731
    street.van.wait(withdrawn, "the van leaves it out")
    assert street.state(order_id)["phase"] == "waiting"


def test_a_reload_after_a_form_says_nothing_again(street: Street) -> None:
    token = street.token(street.order(-5))
    answer = street.hub.http.post(f"/t/{token}", data={"wish": "door_code", "code": "12 34#"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{token}?lang=en&said=wish#said"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 422),
        ({"wish": "cake"}, 422),
        ({"wish": "not_home_until", "until": "soon"}, 422),
        ({"wish": "safe_place", "where": "x" * 201}, 422),
        ({"wish": "safe_place", "where": "x" * 9_000}, 422),
        ({"wish": "door_code", "code": "<script>"}, 422),
        ({f"f{k}": "x" for k in range(99)}, 422),
    ],
)
def test_a_form_that_is_no_wish_gets_a_page_that_says_so(street: Street, form: dict[str, str], status: int) -> None:
    page = street.say(street.order(-6), "sv", **form)
    assert page.status_code == status
    assert 'role="alert"' in page.text
    assert "<script>&" not in page.text


def test_a_body_that_is_no_form_is_refused_with_a_page(street: Street) -> None:
    token = street.token(street.order(-6))
    json = street.hub.http.post(f"/t/{token}", json={"wish": "door_code", "code": "1"})
    long = street.hub.http.post(f"/t/{token}", content=iter([b"a=" + b"x" * 3_000] * 3), headers={"Content-Type": FORM})
    assert (json.status_code, long.status_code) == (422, 422)


fields = st.dictionaries(
    st.sampled_from(["wish", "until", "where", "who", "day", "code", "wanted", "remember", "channel"]),
    st.text(max_size=60) | st.sampled_from(["not_home_until", "safe_place", "other_day", "12:00", "2026-03-04", "yes"]),
)


@given(form=fields)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_form_is_answered_and_the_hub_lives(street: Street, form: dict[str, str]) -> None:
    path = f"/t/{street.token(street.order(-7))}"
    assert street.hub.http.post(path, data=form).status_code in (303, 422, 429)
    assert street.hub.http.get("/healthz").status_code == 200


def test_too_many_wishes_are_refused_until_tomorrow(street: Street) -> None:
    order_id = street.order(-8)
    pages = [street.say(order_id, wish="door_code", code=str(number)) for number in range(21)]
    assert [page.status_code for page in pages] == [200] * 20 + [429]
    assert "That was a lot of wishes for one day." in words_of(pages[-1])


def test_messages_are_stopped_by_the_form_and_wanted_again(street: Street) -> None:
    order_id = street.order(-5)
    assert "We no longer send that" in words_of(street.say(order_id, wish="opt_out"))
    assert set(street.hub.get(f"/api/customers/{order_id}")["opted_out"]) == {"day", "on_its_way", "changed", "missed"}
    assert "We tell you again" in words_of(street.say(order_id, wish="opt_in"))
    assert street.hub.get(f"/api/customers/{order_id}")["opted_out"] == []


# What is shown of the way.


def place_van(street: Street, seq: int) -> None:
    """The van says that it stands a few streets from its first stop."""
    near, now_ms = street.stops[0].position, street.hub.clock.now_ms()
    batch = TelemetryBatch(
        street.van.name, "boot-1", seq, (near.lat + 0.001, near.lon), ("lat", "lon"),
        np.array([now_ms - 2_000, now_ms - 1_000]), (np.zeros(2, np.float32), np.zeros(2, np.float32)),
    )  # fmt: skip
    street.van.publish(topics.up("main", street.van.name, "telemetry"), encode_telemetry(batch))


def test_the_vans_place_is_shown_for_the_last_few_stops_only_and_never_exactly(street: Street) -> None:
    place_van(street, 1)
    street.hub.wait(lambda: street.hub.get("/api/fleet")[0]["position"] is not None, "the van's place is known")
    near, far = street.state(street.order(3)), street.state(street.order(4))
    assert (near["stops_before"], far["stops_before"], far["van"]) == (3, None, None)
    exact = street.hub.get("/api/fleet")[0]["position"]
    assert 0 < abs(near["van"]["lat"] - exact["lat"]) + abs(near["van"]["lon"] - exact["lon"]) < 0.001
    page = street.page(street.order(3)).text
    assert "© OpenStreetMap contributors" in page
    assert "3 stops before you" in page
    assert '<svg class="town"' not in street.page(street.order(4)).text


def test_no_page_names_another_customers_stop_or_address(street: Street) -> None:
    own = street.order(2)
    text = street.page(own).text
    others = [stop for stop in street.stops if stop.order_id != own]
    assert [stop.stop_id for stop in others if stop.stop_id in text or f"{stop.position.lat:.4f}" in text] == []
    assert "van-1" not in text


def test_the_state_has_the_page_only_for_who_has_another_version(street: Street) -> None:
    order_id = street.order(2)
    first = street.state(order_id)
    assert street.state(order_id, have=first["version"])["html"] in (None, first["html"])
    assert "headline" in first["html"]


def test_how_the_visit_ended_is_shown_and_what_comes_too_late_is_answered_so(street: Street) -> None:
    order_id, stop = street.order(0), street.stops[0]
    street.van.say(HeadingTo(stop.stop_id))
    street.van.wait_acked()
    assert "On the way to you now" in words_of(street.page(order_id))
    too_late = street.say(order_id, wish="neighbour", who="Virtanen")
    assert "Not possible. The driver is already on the way to you." in words_of(too_late)
    street.van.say(Arrived(stop.stop_id))
    street.van.wait_acked()
    assert street.state(order_id)["phase"] == "at_the_door"
    now_ms = EpochMs(street.hub.clock.now_ms())
    proof = Proof(tuple(parcel.barcode for parcel in stop.parcels), None, now_ms)
    street.van.say(Visited(Visit(stop.stop_id, Outcome.DELIVERED_TO_NEIGHBOUR, now_ms, now_ms, proof)))
    street.van.wait_acked()
    ended = words_of(street.page(order_id, "sv"))
    assert "Levererad Lämnad hos en granne" in ended


def test_neither_the_log_nor_a_record_knows_a_link_or_a_word_of_a_customer(street: Street) -> None:
    street.say(street.order(-3), wish="door_code", code="4711#")
    logs = "".join(path.read_text() for path in (street.folder / "logs").glob("*"))
    records = street.hub.http.get("/api/decisions", params={"most": 5000}).text
    assert [word for word in ("lilac", "4711#", "/t/") if word in logs + records] == []


def test_what_customers_said_is_listed_for_the_dispatcher_newest_first(street: Street) -> None:
    wishes = street.hub.get("/api/wishes")
    assert [wish["said_ms"] for wish in wishes] == sorted((wish["said_ms"] for wish in wishes), reverse=True)
    assert {"wish", "effect", "why_not", "is_done", "order_id", "decision_id"} <= set(wishes[0])


def test_a_link_lasts_two_days_beyond_the_slot_or_as_long_as_asked(street: Street) -> None:
    path = f"/api/orders/{street.order(-1)}/link"
    slot_ends = street.hub.get(f"/api/orders/{street.order(-1)}")["slot_ms"][1]
    assert street.hub.http.post(path).json()["expires_ms"] == slot_ends + 48 * 3_600_000
    assert street.hub.http.post(path, json={"days": 0}).status_code == 422
    assert street.hub.http.post("/api/orders/none/link").status_code == 404


def test_an_order_whose_address_is_in_doubt_says_so_and_takes_no_wish(street: Street) -> None:
    strange = {"order_id": "D-1", "address": "Hovioikeudenlaituri 999", "slot_from": "10:00", "slot_to": "14:00"}
    street.hub.http.post("/api/orders", json=[strange])
    assert "We are checking the address" in words_of(street.page("D-1"))
    refused = street.say("D-1", wish="door_code", code="1")
    assert refused.status_code == 409
    assert "There is no visit planned that could change." in words_of(refused)


def test_only_a_customer_the_shop_knows_is_promised_that_something_is_remembered(street: Street) -> None:
    known = some_orders(1)[0] | {"order_id": "K-1", "customer_ref": "C-10"}
    street.hub.http.post("/api/orders", json=[known, some_orders(1)[0] | {"order_id": "K-2"}])
    remembered = street.say("K-1", wish="neighbour", who="Virtanen", remember="yes")
    assert "We remember it for the next time." in words_of(remembered)
    assert street.hub.get("/api/customers/C-10")["wishes"]["neighbour"] == "Virtanen"
    assert "emember" not in words_of(street.say("K-2", wish="neighbour", who="Virtanen", remember="yes"))
