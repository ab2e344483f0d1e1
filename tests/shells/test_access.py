"""Who may do what over HTTP, asked of the real core and store: keys, depots, partners, sessions, bounds, the record."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_hub.access import journal as journals
from cloud_hub.access.asked import Access as Accessed
from cloud_hub.access.asked import AccessesSeen
from cloud_hub.access.gate import _is_from_own_page, path_of
from cloud_hub.access.identity import COOKIE, THIS_MACHINE
from cloud_hub.access.keys import KeyRecord
from cloud_hub.access.opening import make_first_key
from cloud_hub.access.roles import RULES, Caller
from cloud_hub.access.setting import AccessSetting
from cloud_hub.access.sight import Sight
from cloud_hub.events import OrdersHanded
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.orderbook import ANOTHERS, ANOTHERS_CUSTOMER
from cloud_hub.storage import DecisionsAsked
from cloud_hub.web.shown import _seeing
from shared.messages import ObjectPart
from shared.steps import Row
from shared.work import StopId
from tests.shells.access_house import House, TestClient, a_house
from tests.shells.hub_parts import some_orders

SCHEMES = st.sampled_from(["Bearer ", "Basic ", "", "bearer ww_"])
PROBLEM = "application/problem+json"
LOOPBACK = ("127.0.0.1", 50_000)
ONE_EACH = {
    "order_id": "A-000", "key_id": "0" * 12, "digest": "0" * 64, "agent": "van-n", "depot_id": "north", "ref": "A-000",
    "customer_ref": "A-000", "notice_id": "n", "decision_id": "hub-000001", "token": "nonsense",
    "key": "van-n/b/events/000000000001",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One hub for all tests of this page that count nothing, with bounds nobody reaches."""
    with a_house(tmp_path_factory.mktemp("house"), AccessSetting(failures_per_min=100_000)) as house:
        yield house


def is_problem(answer: Any, status: int) -> bool:
    return answer.status_code == answer.json()["status"] == status and answer.headers["content-type"].startswith(
        PROBLEM
    )


def ids(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {each["order_id"] for each in answer.json()}


def orders(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{**one, "order_id": name, **more} for one, name in zip(some_orders(len(names)), names, strict=True)]


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: ONE_EACH[found[1]], path)


# Routes.


def test_every_route_of_the_hub_has_a_rule_and_every_rule_a_route(house: House) -> None:
    gate = next(each for each in house.app.user_middleware if each.cls.__name__ == "Gate")
    declared = {
        f"{method} {path_of(route)}"
        for route in gate.kwargs["routes"]
        for method in (getattr(route, "methods", None) or {"GET"})
    }
    assert sorted(declared ^ set(RULES)) == []


@pytest.mark.parametrize("route", sorted(route for route, rule in RULES.items() if rule.need != "nobody"))
def test_nobody_is_let_in_without_saying_who_they_are(house: House, route: str) -> None:
    method, _, path = route.partition(" ")
    answer = house.client().request(method, filled(path))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert method == "HEAD" or "nobody says who asks, expected" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/sign-in", "/static-offline-docs/swagger-ui.css"])
def test_what_is_public_asks_nobody(house: House, path: str) -> None:
    assert house.client().get(path).status_code == 200


def test_a_stranger_learns_nothing_of_what_there_is(house: House) -> None:
    assert is_problem(house.client().get("/nowhere"), 401)
    assert is_problem(house.as_role("viewer").get("/nowhere"), 404)


@pytest.mark.parametrize("role", ["viewer", "operator", "approver", "admin", "partner"])
def test_every_door_a_role_may_open_opens_and_no_other(house: House, role: str) -> None:
    client = house.as_role(role, partner="shop" if role == "partner" else "")
    may = set(client.get("/api/me").json()["may"])
    refused = {
        route
        for route, rule in RULES.items()
        if rule.need != "nobody" and not route.startswith(("GET /api/feed", "DELETE"))
        and client.request(route.partition(" ")[0], filled(route.partition(" ")[2])).status_code == 403
    }  # fmt: skip
    assert refused == {r for r in RULES if r not in may and not r.startswith(("GET /api/feed", "DELETE"))}


def test_a_browser_that_opens_a_page_is_led_to_the_sign_in(house: House) -> None:
    answer = house.client(Accept="text/html,*/*").get("/depots/north?lang=fi")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fdepots%2Fnorth%3Flang%3Dfi"


# Keys.


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        admin = house.as_role("admin")
        said = {"name": "screens", "role": "viewer", "days": 30, "by": "Anna"}
        made = admin.post("/api/keys", json=said)
        assert made.status_code == 201
        key, key_id = made.json()["key"], made.json()["key_id"]
        assert house.client(key).get("/api/fleet").status_code == 200
        listed = admin.get("/api/keys").text
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert key_id.encode() in on_disk
    assert key.split("_", 2)[2].encode() not in on_disk
    assert key_id in listed
    assert "digest" not in listed


def test_a_revoked_key_is_dead_with_its_answer(house: House) -> None:
    admin, key = house.as_role("admin"), house.key("operator")
    key_id = key.split("_")[1]
    assert house.client(key).get("/api/me").status_code == 200
    assert admin.delete(f"/api/keys/{key_id}", params={"by": "Anna"}).json() == {"key_id": key_id, "is_revoked": True}
    answer = house.client(key).get("/api/me")
    assert is_problem(answer, 401)
    assert f"ww_{key_id}_... was revoked" in answer.json()["detail"]
    assert key not in answer.text
    assert is_problem(admin.delete("/api/keys/ffffffffffff"), 404)


def test_an_expired_key_opens_nothing(house: House) -> None:
    assert is_problem(house.client(house.key("admin", expires_ms=1)).get("/api/me"), 401)


def test_keys_are_on_record_by_their_ids_and_name_nobody(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        made = house.as_role("admin").post("/api/keys", json={"name": "Berta's", "role": "viewer", "by": "Anna"})
        records = [row.doc for row in house.store.decisions(DecisionsAsked(kind="key_made"))]
        hands = [document for _, document in house.store.documents("hands")]
    assert made.json()["key_id"].encode() in records[-1]
    assert not any(name in record for record in records for name in (b"Anna", b"Berta"))
    assert any(b"Anna" in hand and b"Berta" in hand for hand in hands)


def test_the_first_admin_key_is_made_once_and_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with a_house(tmp_path) as house:
        make_first_key(house.settings.access, house.ask)
        shown = capsys.readouterr().err
        make_first_key(house.settings.access, house.ask)
        assert capsys.readouterr().err == ""
        key = re.findall(r"ww_\S+", shown)[0]
        assert house.client(key).get("/api/me").json()["role"] == "admin"


@pytest.mark.parametrize(
    "said",
    [
        {"name": "x", "role": "king"}, {"name": "", "role": "viewer"}, {"name": "x", "role": "viewer", "depots": []},
        {"name": "x", "role": "viewer", "depots": ["nowhere"]}, {"name": "x", "role": "partner"},
        {"name": "x", "role": "viewer", "partner": "shop"}, {"name": "x", "role": "viewer", "days": 0},
        {"name": "x", "role": "partner", "partner": "shop", "depots": ["north"]}, {"role": "viewer"},
    ],
)  # fmt: skip
def test_a_key_nobody_could_mean_is_not_made(house: House, said: dict[str, Any]) -> None:
    assert is_problem(house.as_role("admin").post("/api/keys", json=said), 422)


def test_last_use_is_known_to_minutes(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        key = house.key("viewer")
        house.client(key).get("/api/me")
        house.access.journal.flush()
        kept = msgspec.json.decode(house.store.document("keys", key.split("_")[1]) or b"", type=KeyRecord)
    assert kept.used_ms


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=90), SCHEMES)
def test_no_nonsense_is_a_key_and_none_of_it_breaks_the_door(house: House, text: str, scheme: str) -> None:
    answer = house.client(Authorization=f"{scheme}{text}").get("/api/me")
    assert answer.status_code == 401
    cookie = house.client(Cookie=f"{COOKIE}={text}").get("/api/me")
    assert cookie.status_code == 401


# Depots.


@pytest.fixture(scope="module")
def two_depots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Orders of north's people, of south's, and of nobody's in particular; one of the last is south's van's now."""
    with a_house(tmp_path_factory.mktemp("depots")) as house:
        for depot, name in (("north", "N"), ("south", "S")):
            handed = house.as_role("operator", depots=(depot,)).post(
                "/api/orders", json=orders(f"{name}-1", f"{name}-2")
            )
            assert len(handed.json()["accepted"]) == 2, handed.text
        house.as_role("operator").post("/api/orders", json=orders("U-1", "U-2", customer_ref="K-9"))
        given_to = StopRecord("stop-U-1", "U-1", "planned", "van-s", had_by=("van-s",))  # type: ignore[arg-type]
        house.store.commit([Row("stops", "stop-U-1", msgspec.json.encode(given_to))])
        yield house


def test_each_depot_sees_what_its_people_handed_in_and_its_vans_have(two_depots: House) -> None:
    north, south = (two_depots.as_role("viewer", depots=(depot,)) for depot in ("north", "south"))
    assert ids(north.get("/api/orders")) == {"N-1", "N-2"}
    assert ids(south.get("/api/orders")) == {"S-1", "S-2", "U-1"}
    assert ids(two_depots.as_role("viewer").get("/api/orders")) == {"N-1", "N-2", "S-1", "S-2", "U-1", "U-2"}
    assert [van["agent"] for van in north.get("/api/vehicles").json()] == ["van-n"]
    assert [van["agent"] for van in south.get("/api/fleet").json()] == ["van-s"]
    assert north.get("/api/depots/north/board").status_code == 200


@pytest.mark.parametrize(
    "route",
    sorted(r for r, rule in RULES.items() if r.startswith("GET /") and rule.need != "nobody" and not rule.everywhere
           and r not in ("GET /api/feed", "GET /openapi.json", "GET /docs", "GET /docs/oauth2-redirect", "GET /metrics",
                         "GET /api/roads/ways", "GET /api/me")),
)  # fmt: skip
def test_nothing_of_another_depot_is_in_any_answer(two_depots: House, route: str) -> None:
    north = two_depots.as_role("viewer", depots=("north",))
    for foreign in ("S-1", "U-1", "van-s", "south"):
        path = re.sub(r"\{(\w+)(:path)?\}", foreign, route.partition(" ")[2])
        answer = north.get(path, headers={"Accept": "application/json"})
        told = answer.text.replace(foreign, "") if "{" in route else answer.text
        assert not re.search(r"\b(S-[12]|U-[12]|van-s|south)\b", told), (path, answer.text[:400])
        assert "{" not in route or answer.status_code in (404, 422) or answer.json() == []


def test_who_is_bound_changes_nothing_of_another_depot(two_depots: House) -> None:
    north = two_depots.as_role("operator", depots=("north",))
    said = {"opens": "2026-03-03T10:00+02:00", "closes": "2026-03-03T12:00+02:00", "by": "x"}
    assert is_problem(north.post("/api/promises/S-1/window", json=said), 404)
    assert is_problem(north.post("/api/orders/S-1/link"), 404)
    assert is_problem(north.post("/api/orders/S-1/correction", json={"lat": 60.17, "lon": 24.94, "by": "x"}), 404)
    assert is_problem(north.put("/api/customers/K-9", json={"name": "taken over"}), 404)
    assert is_problem(north.put("/api/vehicles/van-s", json={"depot": "north"}), 403)
    assert is_problem(north.put("/api/vehicles/van-n", json={"depot": "south"}), 403)
    assert is_problem(north.post("/api/day/plan"), 403)
    assert is_problem(north.post("/api/roads/closures", json={"street": "Yrjönkatu"}), 403)
    assert north.put("/api/vehicles/van-n", json={"depot": "north"}).status_code == 200


def test_a_watcher_is_shown_its_own_depots_changes_alone(two_depots: House) -> None:
    sight = Sight(Caller("key:1", "n", "key", "viewer", ("north",)), two_depots.store)
    documents = dict(two_depots.store.documents("orders"))
    assert [key for key, document in documents.items() if sight.sees("orders", key, document)] == ["N-1", "N-2"]
    assert not sight.sees("agents", "van-s", b"{}")
    assert sight.sees("roads", "closures", b"{}")
    assert not sight.sees("objects", "x", b'{"stop_id":"stop-S-1"}')
    assert not sight.sees("a room nobody thought of", "x", b"{}")


def test_a_signature_is_shown_where_its_order_belongs(two_depots: House) -> None:
    picture = b"\x89PNG of a signature"
    digest = hashlib.sha256(picture).hexdigest()
    part = ObjectPart(digest, "signature", StopId("stop-U-1"), "image/png", 0, 1, picture)
    two_depots.store.commit([Row("objects", f"{digest}/stop-U-1/0000", msgspec.json.encode(part))])
    north, south = (two_depots.as_role("viewer", depots=(depot,)) for depot in ("north", "south"))
    assert is_problem(north.get(f"/api/objects/{digest}"), 404)
    assert south.get(f"/api/objects/{digest}").content == picture


def test_a_browsers_word_on_where_it_asks_from_is_taken() -> None:
    assert _is_from_own_page({"sec-fetch-site": "same-origin"}, "POST")
    assert not _is_from_own_page({"sec-fetch-site": "cross-site", "origin": "http://a", "host": "a"}, "POST")
    assert not _is_from_own_page({"host": "a"}, "DELETE")
    assert _is_from_own_page({}, "GET")


def test_the_feed_of_who_is_bound_holds_back_what_is_not_theirs(two_depots: House) -> None:
    is_shown = _seeing(Sight(Caller("key:1", "n", "key", "viewer", ("north",)), two_depots.store))
    rows = [Row("orders", key, document) for key, document in two_depots.store.documents("orders")]
    assert [row.key for row in rows if is_shown(row)] == ["N-1", "N-2"]
    assert not is_shown(Row("stops", "stop-N-1", None))
    assert all(map(_seeing(None), rows))


# Partners.


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two shops, each with an order of its own, and one of the operator's."""
    with a_house(tmp_path_factory.mktemp("shops")) as house:
        for shop in ("red", "blue"):
            taken = shop_of(house, shop).post(
                "/api/orders", json=orders(f"{shop}-1", customer_ref=f"K-{shop}", email="a@example.fi", consent="email")
            )
            assert taken.json()["accepted"] == [f"{shop}-1"], taken.text
        house.as_role("operator").post("/api/orders", json=orders("own-1", customer_ref="K-own", name="Own"))
        yield house


def shop_of(house: House, name: str) -> TestClient:
    return house.as_role("partner", partner=name)


def test_a_partner_sees_its_own_orders_and_nothing_else(shops: House) -> None:
    red = shop_of(shops, "red")
    assert ids(red.get("/api/orders")) == {"red-1"}
    assert red.get("/api/orders/red-1").status_code == 200
    assert is_problem(red.get("/api/orders/blue-1"), 404)
    assert is_problem(red.get("/api/orders/own-1"), 404)
    assert is_problem(red.get("/api/orders/own-1/proof"), 404)
    assert is_problem(red.post("/api/orders/blue-1/link"), 404)
    assert red.post("/api/orders/red-1/link").status_code == 200
    assert red.get("/api/notices").json() == []
    assert red.get("/api/promises").json() == []
    for route in ("/api/fleet", "/api/customers/K-red", "/api/decisions", "/api/feed", "/metrics", "/"):
        assert red.get(route).status_code == 403, route


def test_an_order_is_its_partners_whatever_the_row_says(shops: House) -> None:
    red = shop_of(shops, "red")
    (refused,) = red.post("/api/orders", json=orders("red-2", partner="blue")).json()["refused"]
    assert refused["what_found"] == "it names a partner that is not yours"
    red.post("/api/orders", json=orders("red-3"))
    kept = msgspec.json.decode(shops.store.document("orders", "red-3") or b"", type=Order)
    assert kept.partner == "red"


def test_nobody_takes_over_another_shops_order_or_customer(shops: House) -> None:
    red = shop_of(shops, "red")
    again = red.post(
        "/api/orders", json=orders("blue-1", customer_ref="K-blue", email="thief@example.fi", consent="email")
    )
    assert again.json()["accepted"] == again.json()["repeats"] == []
    assert again.json()["refused"][0]["what_found"] == "its number is that of somebody else's order"
    strange = red.post("/api/orders", json=orders("red-4", customer_ref="K-blue", email="thief@example.fi"))
    assert strange.json()["refused"][0]["what_found"] == "its customer_ref is that of somebody else's customer"
    of_ours = red.post("/api/orders", json=orders("red-5", customer_ref="K-own", email="thief@example.fi"))
    assert of_ours.json()["accepted"] == []
    assert "thief" not in str(shops.store.documents("customers"))


def test_the_core_itself_takes_nothing_for_another_shop(shops: House) -> None:
    kept = msgspec.json.decode(shops.store.document("orders", "red-1") or b"", type=Order)
    taken_over = msgspec.structs.replace(kept, partner="blue", fingerprint="other")
    theirs = msgspec.structs.replace(kept, order_id="blue-9", partner="blue", stop=None, state="doubtful")
    answer = shops.ask(OrdersHanded((taken_over, theirs))).result()
    assert answer.named == ()
    assert dict(answer.refused) == {"red-1": ANOTHERS, "blue-9": ANOTHERS_CUSTOMER}


def test_a_parcel_another_shop_has_is_refused_without_its_order(shops: House) -> None:
    shop_of(shops, "blue").post("/api/orders", json=orders("blue-7", parcels=["JJFI64300000004711037"]))
    (refused,) = shop_of(shops, "red").post(
        "/api/orders", json=orders("red-7", parcels=["JJFI64300000004711037"])
    ).json()["refused"]  # fmt: skip
    assert "which is in another order" in refused["what_found"]
    assert "blue" not in str(refused)


def test_what_a_shop_says_of_an_address_moves_its_own_order_alone(shops: House) -> None:
    blue = shop_of(shops, "blue")
    doubtful = {"order_id": "blue-8", "address": "Hovioikeudenlaituri 777", "slot_from": "10:00", "slot_to": "12:00"}
    blue.post("/api/orders", json=[doubtful])
    assert ids(blue.get("/api/orders/doubtful")) == {"blue-8"}
    assert ids(shop_of(shops, "red").get("/api/orders/doubtful")) == set()
    said = {"lat": 60.1699, "lon": 24.9410, "by": "b"}
    assert blue.post("/api/orders/blue-8/correction", json=said).json()["state"] == "accepted"
    assert shops.store.documents("corrections") == []


# Sessions.


@pytest.fixture
def signed_in(house: House) -> TestClient:
    """A browser signed in by an operator's key, with the address bar's own requests."""
    browser = house.client(**{"Origin": "http://hub.local"})
    answer = browser.post("/sign-in", data={"key": house.key("operator"), "next": "/depots/north"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/depots/north")
    return browser


def test_a_sign_in_by_key_opens_a_session_in_a_guarded_cookie(house: House, signed_in: TestClient) -> None:
    assert signed_in.get("/api/me").json()["kind"] == "session"
    again = house.client(**{"X-Forwarded-Proto": "https"})
    answer = again.post("https://hub.local/sign-in", data={"key": house.key("viewer")})
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert int(re.findall(r"Max-Age=(\d+)", cookie)[0]) == pytest.approx(12 * 3600, abs=5)


def test_a_session_changes_nothing_for_a_page_that_is_not_ours(house: House, signed_in: TestClient) -> None:
    row = orders("CS-1")
    assert is_problem(signed_in.post("/api/orders", json=row, headers={"Origin": "http://evil.example"}), 403)
    assert is_problem(signed_in.post("/api/orders", json=row, headers={"Sec-Fetch-Site": "same-site"}), 403)
    silent = house.client()
    silent.cookies = signed_in.cookies
    assert is_problem(silent.post("/api/orders", json=row), 403)
    assert signed_in.post("/api/orders", json=row).json()["accepted"] == ["CS-1"]


def test_signing_out_ends_the_session_at_the_hub(house: House, signed_in: TestClient) -> None:
    stolen = signed_in.cookies[COOKIE]
    signed_in.post("/sign-out")
    thief = house.client(Cookie=f"{COOKIE}={stolen}")
    assert is_problem(thief.get("/api/me"), 401)


def test_a_session_ends_with_the_key_it_was_opened_by(house: House) -> None:
    key = house.key("viewer")
    browser = house.client(**{"Origin": "http://hub.local"})
    browser.post("/sign-in", data={"key": key})
    assert browser.get("/api/me").status_code == 200
    house.as_role("admin").delete(f"/api/keys/{key.split('_')[1]}")
    assert is_problem(browser.get("/api/me"), 401)


def test_a_session_is_no_key_and_a_changed_cookie_no_session(house: House, signed_in: TestClient) -> None:
    cookie = signed_in.cookies[COOKIE]
    assert is_problem(house.client(cookie.rpartition(".")[0]).get("/api/me"), 401)
    assert is_problem(house.client(Cookie=f"{COOKIE}={cookie[:-1]}A").get("/api/me"), 401)


@pytest.mark.parametrize(
    "where", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_a_sign_in_goes_on_to_a_page_of_ours_only(house: House, where: str) -> None:
    answer = house.client().post("/sign-in", data={"key": house.key("viewer"), "next": where})
    assert answer.headers["location"] == "/"


def test_a_wrong_key_gets_the_page_again_without_it(house: House) -> None:
    answer = house.client().post("/sign-in", data={"key": "ww_secretsecret", "next": "/"})
    assert answer.status_code == 401
    assert "secretsecret" not in answer.text
    assert "set-cookie" not in answer.headers


# The loopback.


def test_an_open_hub_takes_this_machine_for_an_admin_and_nobody_else(tmp_path: Path) -> None:
    with a_house(tmp_path, AccessSetting(open_on_loopback=True)) as house:
        here = house.client(address=LOOPBACK)
        assert here.get("/api/me").json()["subject"] == THIS_MACHINE.subject
        assert is_problem(house.client().get("/api/me"), 401)
        brought = house.client(address=LOOPBACK, **{"X-Forwarded-For": "127.0.0.1"})
        assert is_problem(brought.get("/api/me"), 401)
        assert is_problem(house.client("ww_wrong", LOOPBACK).get("/api/me"), 401)


def test_a_hub_is_closed_on_the_loopback_unless_it_is_told_otherwise(house: House) -> None:
    assert is_problem(house.client(address=LOOPBACK).get("/api/me"), 401)


# Bounds.


def test_who_asks_too_often_is_told_when_to_ask_again(tmp_path: Path) -> None:
    with a_house(tmp_path, AccessSetting(requests_per_min=5)) as house:
        client = house.as_role("viewer")
        answers = [client.get("/api/me") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert is_problem(answers[-1], 429)
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert house.as_role("viewer").get("/api/me").status_code == 200


def test_keys_tried_in_vain_are_bounded_and_a_good_one_still_opens(tmp_path: Path) -> None:
    with a_house(tmp_path, AccessSetting(failures_per_min=3)) as house:
        wrong = house.client("ww_000000000000_" + "x" * 43)
        assert [wrong.get("/api/me").status_code for _ in range(5)] == [401, 401, 401, 429, 429]
        assert house.as_role("viewer").get("/api/me").status_code == 200
        assert house.client().get("/t/nonsense").status_code == 429
        assert house.client(address=("198.51.100.9", 1)).get("/t/nonsense").status_code == 404
        counted = house.registry.get_sample_value("waywarden_access_refused_total", {"what": "key_unknown"})
        assert counted == 3


@pytest.mark.parametrize(
    ("path", "form"), [("/t/nonsense", {"wish": "opt_out"}), ("/sign-in", {"key": "ww_nonsense"}), ("/t/x/stop", {})]
)
def test_links_and_sign_ins_tried_in_vain_are_bounded(tmp_path: Path, path: str, form: dict[str, str]) -> None:
    with a_house(tmp_path, AccessSetting(failures_per_min=2)) as house:
        stranger = house.client()
        answers = [stranger.post(path, data=form).status_code for _ in range(4)]
        assert answers[:2] in ([404, 404], [401, 401])
        assert answers[2:] == [429, 429]


def test_what_is_said_in_a_customers_name_is_bounded(tmp_path: Path) -> None:
    with a_house(tmp_path, AccessSetting(wishes_per_min=2)) as house:
        house.as_role("operator").post("/api/orders", json=orders("A-000"))
        token = house.as_role("operator").post("/api/orders/A-000/link").json()["token"]
        said = [house.client().post(f"/t/{token}/stop").status_code for _ in range(3)]
        assert said == [200, 200, 429]


# The record.


def test_who_reads_personal_data_is_on_record(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        reader = house.key("viewer")
        house.as_role("operator").post("/api/orders", json=orders("A-000"))
        for path in ("/api/orders/A-000", "/api/orders/A-000", "/api/customers/C-5", "/api/depots/north/board"):
            house.client(reader).get(path)
        house.as_role("viewer").delete("/api/customers/C-5")
        house.access.journal.flush()
        admin = house.as_role("admin")
        subject = f"key:{reader.split('_')[1]}"
        told = admin.get("/api/accesses", params={"subject": subject}).json()
        unnamed = house.access.identity.named("ref", "C-5")
        assert {(one["route"], one["about"], one["status"]) for one in told} == {
            ("GET /api/orders/{order_id}", "A-000", 200), ("GET /api/customers/{ref}", unnamed, 404),
            ("GET /api/depots/{depot_id}/board", "north", 200),
        }  # fmt: skip
        assert sum(one["times"] for one in told) == 4
        of_them = admin.get("/api/accesses", params={"about": "C-5"})
        assert [one["route"] for one in of_them.json()] == ["GET /api/customers/{ref}"]
        assert "C-5" not in of_them.text
        assert is_problem(house.as_role("approver").get("/api/accesses"), 403)


def test_keys_and_accesses_live_in_postgresql_as_well(fresh_database: Callable[[], str], tmp_path: Path) -> None:
    with a_house(tmp_path, url=fresh_database()) as house:
        admin = house.as_role("admin")
        key = admin.post("/api/keys", json={"name": "x", "role": "viewer", "depots": ["north"]}).json()["key"]
        reader = house.client(key)
        assert [van["agent"] for van in reader.get("/api/fleet").json()] == ["van-n"]
        house.access.journal.flush()
        told = admin.get("/api/accesses", params={"subject": f"key:{key.split('_')[1]}"}).json()
        assert [one["route"] for one in told] == ["GET /api/fleet"]
        admin.delete(f"/api/keys/{key.split('_')[1]}")
        assert is_problem(reader.get("/api/fleet"), 401)


def test_accesses_are_forgotten_after_their_days(tmp_path: Path) -> None:
    with a_house(tmp_path, AccessSetting(record_days=10)) as house:
        old, young = 1_700_000_000_000, 1_700_000_000_000 + 10 * 86_400_000
        seen = (
            ("2023-11-14/a", Accessed("key:1", old, "r", "*", 200)),
            ("2023-11-24/b", Accessed("key:1", young, "r", "*", 200)),
        )
        house.ask(AccessesSeen(seen))
        journal = house.access.journal
        journal._next_look_s = 0.0
        original = journals.time.time
        journals.time.time = lambda: young / 1000 + 86_400  # type: ignore[assignment]  # the wall clock, for a moment.
        try:
            journal._forget()
        finally:
            journals.time.time = original
        assert [key for key, _ in house.store.documents("accesses", "2023")] == ["2023-11-24/b"]


def test_a_flood_of_accesses_stays_bounded_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_WAITING", 3)
    with a_house(tmp_path) as house:
        for number in range(10):
            house.access.journal.note("key:1", "r", f"A-{number}", 200)
        house.access.journal.flush()
        kept = [msgspec.json.decode(document, type=Accessed) for _, document in house.store.documents("accesses")]
    assert len(kept) <= 5
    assert sum(one.times for one in kept) == 10


def test_the_interface_says_which_role_each_door_needs(house: House) -> None:
    described = house.as_role("viewer").get("/openapi.json").json()
    plan = described["paths"]["/api/day/plan"]["post"]
    assert "Needs: operator; not bound to depots." in plan["description"]
    assert plan["security"] == [{"key": []}, {"session": []}]
    assert {"401", "403", "409", "422", "429"} <= set(plan["responses"])
    assert described["paths"]["/healthz"]["get"]["security"] == []
    assert set(described["components"]["securitySchemes"]) == {"key", "session"}
    assert "HTTPValidationError" not in json.dumps(described)
