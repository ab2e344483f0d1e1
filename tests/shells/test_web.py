"""The hub's HTTP interface, asked by real requests of a real process; nonsense gets a named refusal and it lives."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.stack import Stack
from tests.shells.hub_parts import HubProcess, some_orders, start_broker

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub for all tests of this page, with a day of five orders planned; tests use orders of their own."""
    folder = tmp_path_factory.mktemp("web")
    with Stack(folder / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), folder)
        hub.plan_day(some_orders(5))
        yield hub


def order(order_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "order_id": order_id, "address": "Mannerheimintie 5, 00100 Helsinki", "slot_from": "10:00", "slot_to": "14:00",
    } | changes  # fmt: skip


def is_problem(answer: httpx.Response, status: int) -> bool:
    body = answer.json()
    return (
        answer.status_code == body["status"] == status
        and answer.headers["content-type"] == PROBLEM
        and {"type", "title", "detail"} <= set(body)
    )


def test_orders_come_as_json_and_as_csv(hub: HubProcess) -> None:
    wrapped = hub.http.post("/api/orders", json={"orders": [order("J-1")]})
    table = "order_id,address,slot_from,slot_to\nC-1,Mannerheimintie 5,10:00,14:00\n"
    plain = hub.http.post("/api/orders", content=table, headers={"Content-Type": "text/csv"})
    assert [answer.json()["accepted"] for answer in (wrapped, plain)] == [["J-1"], ["C-1"]]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data; boundary=x"},
     {"Content-Type": "application/x-www-form-urlencoded"}],
)  # fmt: skip
def test_what_a_foreign_page_may_post_without_asking_is_no_order(hub: HubProcess, headers: dict[str, str]) -> None:
    answer = hub.http.post("/api/orders", content=json.dumps([order("X-1")]).encode(), headers=headers)
    assert is_problem(answer, 415)
    assert "expected application/json or text/csv" in answer.json()["detail"]


def test_an_accepted_order_says_how_sure_its_place_is_and_why(hub: HubProcess) -> None:
    taken = hub.http.post("/api/orders", json=[order("S-1", address="Mannerheimint. 5")]).json()
    place = taken["places"]["S-1"]
    assert 0.8 <= place["confidence"] < 1
    assert place["reason"]
    kept = hub.get("/api/orders/S-1")
    assert (kept["confidence"], kept["place_reason"]) == (place["confidence"], place["reason"])


def test_a_foreign_page_changes_nothing_and_the_hubs_own_may(hub: HubProcess) -> None:
    foreign = hub.http.post("/api/day/plan", headers={"Sec-Fetch-Site": "cross-site"})
    assert is_problem(foreign, 403)
    assert "cross-site page" in foreign.json()["detail"]
    own = hub.http.post("/api/orders", json=[order("O-1")], headers={"Sec-Fetch-Site": "same-origin"})
    assert own.json()["accepted"] == ["O-1"]


def test_the_same_order_again_is_a_repeat_and_another_under_its_name_is_refused(hub: HubProcess) -> None:
    hub.http.post("/api/orders", json=[order("R-1")])
    assert hub.http.post("/api/orders", json=[order("R-1")]).json()["repeats"] == ["R-1"]
    (refused,) = hub.http.post("/api/orders", json=[order("R-1", floor=3)]).json()["refused"]
    assert refused["order_id"] == "R-1"
    assert "other content" in refused["what_found"]


def test_a_doubtful_order_waits_for_a_person_whose_answer_is_remembered(hub: HubProcess) -> None:
    strange = order("D-1", address="Hovioikeudenlaituri 999")
    taken = hub.http.post("/api/orders", json=[strange]).json()
    assert taken["accepted"] == []
    assert [doubt["order_id"] for doubt in taken["doubtful"]] == ["D-1"]
    assert "D-1" in {waiting["order_id"] for waiting in hub.get("/api/orders/doubtful")}
    assert "D-1" in {waiting["order_id"] for waiting in hub.get("/api/needs-you")}
    said = {"lat": 60.1699, "lon": 24.9410, "by": "anna"}
    corrected = hub.http.post("/api/orders/D-1/correction", json=said)
    assert corrected.json()["state"] == "accepted"
    assert corrected.json()["position"] == [60.1699, 24.941]
    again = hub.http.post("/api/orders", json=[{**strange, "order_id": "D-2"}]).json()
    assert again["accepted"] == ["D-2"]
    assert "Anna said where order D-1 goes" in hub.get("/api/orders/D-1/why")["sentences"][0]
    assert is_problem(hub.http.post("/api/orders/D-1/correction", json=said), 409)


def test_a_correction_must_be_a_place_a_van_can_reach(hub: HubProcess) -> None:
    hub.http.post("/api/orders", json=[order("P-1", address="Hovioikeudenlaituri 998")])
    nowhere = hub.http.post("/api/orders/P-1/correction", json={"lat": 0, "lon": 0, "by": "anna"})
    assert is_problem(nowhere, 422)
    assert "outside the map, expected 60." in nowhere.json()["detail"]


def test_a_slip_in_a_position_never_moves_the_address_it_was_given_with(hub: HubProcess) -> None:
    (doubt,) = hub.http.post("/api/orders", json=[order("P-2", lat=0, lon=0)]).json()["doubtful"]
    assert doubt["candidates"][0]["lat"] == pytest.approx(60.17, abs=0.02)
    by_hand = {"lat": 60.1699, "lon": 24.9410, "by": "anna"}
    assert hub.http.post("/api/orders/P-2/correction", json=by_hand).json()["position"] == [60.1699, 24.941]
    hub.http.post("/api/orders", json=[order("P-3")])
    assert hub.get("/api/orders/P-3")["position"] == [doubt["candidates"][0]["lat"], doubt["candidates"][0]["lon"]]


def test_an_order_names_its_customer_for_who_must_forget_him(hub: HubProcess) -> None:
    sold = {"order_id": "C-001", "address": "Kalevankatu 13", "slot_from": "10:00", "slot_to": "14:00"}
    taken = hub.http.post("/api/orders", json=[{**sold, "customer_ref": "K-77", "name": "Aino"}]).json()
    assert taken["accepted"] == ["C-001"]
    assert hub.get("/api/orders/C-001")["customer_ref"] == "K-77"


def test_an_order_explains_itself(hub: HubProcess) -> None:
    assert hub.get("/api/orders/A-001")["stop_state"] == "planned"
    why = hub.get("/api/orders/A-001/why")
    assert [decision["kind"] for decision in why["decisions"]] == ["planned"]
    of_the_van, of_the_window = why["sentences"]
    assert of_the_van.startswith("van-1 gets 5 stops on 2026-03-03: out at ")
    assert of_the_window.startswith("Order A-001 comes between ")
    promise = next(p for p in hub.get("/api/promises") if p["order_id"] == "A-001")
    assert promise["slot_ms"][0] <= promise["told_ms"][0] < promise["told_ms"][1] <= promise["slot_ms"][1]


def test_the_picture_holds_together(hub: HubProcess) -> None:
    (van,) = hub.get("/api/fleet")
    route = hub.get("/api/routes/van-1")
    assert van["order"] == route["shown_order"] == route["planned_order"]
    assert van["stops_left"] == len(route["stops"]) == 5
    (planned,) = hub.get("/api/decisions", kind="planned")
    assert hub.get(f"/api/decisions/{planned['decision_id']}") == planned
    looked_at = {each["name"]: each["value"] for each in planned["inputs"]}
    assert looked_at["orders"] == "5"
    assert looked_at["vehicles"] == "van-1"
    assert looked_at["solver"].startswith("seed 1, limit 0.3 s, ")
    before, after = planned["alternatives"]
    assert after["what"] == "the order after exact repair, 5 stops"
    assert before["cost_s"] >= after["cost_s"] >= after["driving_s"] > 0
    assert f"{after['driving_s'] // 60:.0f} min of driving" in planned["sentence"]
    assert {notice["state"] for notice in hub.get("/api/notices")} == {"kept"}
    assert hub.get("/api/notices", state="due") == []


def test_a_window_may_be_told_by_hand_inside_the_slot_only(hub: HubProcess) -> None:
    said = {"opens": "2026-03-03T13:00+02:00", "closes": "2026-03-03T14:00+02:00", "by": "anna"}
    told = hub.http.post("/api/promises/A-002/window", json=said)
    assert told.status_code == 200
    outside = hub.http.post("/api/promises/A-002/window", json={**said, "closes": "2026-03-03T19:00+02:00"})
    assert is_problem(outside, 409)
    assert is_problem(hub.http.post("/api/promises/A-002/window", json={**said, "opens": "noon"}), 422)


def test_a_street_is_closed_by_name_by_point_and_by_way_and_opened_again(hub: HubProcess) -> None:
    named = hub.http.post("/api/roads/closures", json={"street": "Yrjönkatu", "why": "market"}).json()
    assert {way["street"] for way in named["closed"]} == {"Yrjönkatu"}
    pointed = hub.http.post("/api/roads/closures", json={"lat": 60.1690, "lon": 24.9400}).json()
    assert len(pointed["closed"]) > len(named["closed"])
    assert hub.http.delete("/api/roads/closures").json()["closed"] == []
    assert is_problem(hub.http.post("/api/roads/closures", json={"street": "Nowhere Lane"}), 404)
    assert is_problem(hub.http.post("/api/roads/closures", json={"ways": [1]}), 404)
    assert is_problem(hub.http.post("/api/roads/closures", json={}), 422)


def test_a_vehicle_may_be_named_over_the_interface(hub: HubProcess) -> None:
    named = hub.http.put(
        "/api/vehicles/van-9", json={"depot": "north", "shift_from": "12:00", "shift_to": "20:00", "break_min": 0}
    )
    assert named.status_code == 200
    assert "van-9" in {vehicle["agent"] for vehicle in hub.get("/api/vehicles")}
    assert is_problem(hub.http.put("/api/vehicles/van-9", json={"depot": "south"}), 422)
    assert is_problem(hub.http.put("/api/vehicles/hub", json={"depot": "north"}), 422)


def test_a_refused_plan_of_another_day_leaves_a_vehicle_as_a_person_named_it(hub: HubProcess) -> None:
    hub.http.put("/api/vehicles/van-1", json={"depot": "north", "shift_from": "09:00", "shift_to": "15:00"})
    before = hub.get("/api/vehicles")
    assert is_problem(hub.http.post("/api/day/plan", json={"day": "2026-05-05"}), 409)
    assert hub.get("/api/vehicles") == before


def test_every_order_that_waits_says_why(hub: HubProcess) -> None:
    hub.http.post("/api/orders", json=[order("W-1")])
    waiting = {each["order_id"]: each["why"] for each in hub.get("/api/day")["waiting"]}
    assert waiting["W-1"] == "not planned yet: it is part of the next plan somebody asks for"
    assert "" not in waiting.values()


def test_every_kind_of_error_is_a_problem(hub: HubProcess) -> None:
    http = hub.http
    assert is_problem(http.get("/nowhere"), 404)
    assert is_problem(http.get("/api/orders/none-such"), 404)
    assert is_problem(http.get("/api/decisions/none/such"), 404)
    assert is_problem(http.delete("/api/orders"), 405)
    assert is_problem(http.get("/api/decisions?after=soon"), 422)
    assert is_problem(http.post("/api/orders", content=b"{", headers={"Content-Type": "application/json"}), 422)
    assert is_problem(http.post("/api/orders", content=b"x", headers={"Content-Type": "image/png"}), 415)
    assert is_problem(http.post("/api/orders", content=b" " * 200_001), 413)
    csv = {"Content-Type": "text/csv"}
    assert is_problem(http.post("/api/orders", content=iter([b" " * 150_000] * 2), headers=csv), 413)
    assert is_problem(http.post("/api/day/plan", json={"day": "tomorrow"}), 422)


def test_the_interface_describes_itself(hub: HubProcess) -> None:
    described = hub.get("/openapi.json")
    assert described["openapi"].startswith("3.1")
    operations = [(path, how, what) for path, methods in described["paths"].items() for how, what in methods.items()]
    assert [path for path, how, what in operations if not what.get("summary") or not what.get("tags")] == []
    assert described["paths"]["/api/orders"]["post"]["requestBody"]["content"]["application/json"]["example"]


def test_the_page_that_shows_the_interface_asks_no_other_host(hub: HubProcess) -> None:
    page = hub.http.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    script = page.text.split('<script src="')[1].split('"')[0]
    assert hub.http.get(script).headers["content-type"].startswith(("text/javascript", "application/javascript"))


def test_every_door_of_the_interface_is_in_its_description(hub: HubProcess) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    doors = [f"{how.upper()} {path}" for path, methods in hub.get("/openapi.json")["paths"].items() for how in methods]
    assert [door for door in doors if f"`{door}`" not in page] == []


def test_those_who_run_it_see_how_it_is(hub: HubProcess) -> None:
    assert hub.get("/healthz") == {"status": "live"}
    assert hub.get("/readyz") == {"status": "ready"}
    assert 'waywarden_hub_link_up{what="broker"} 1.0' in hub.http.get("/metrics").text
    page = hub.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/fleet" in page.text


def test_a_change_is_seen_by_who_watches(hub: HubProcess) -> None:
    seen: list[str] = []
    watching = threading.Event()

    def watch() -> None:
        with httpx.stream("GET", f"{hub.http.base_url}/api/feed", timeout=20) as feed:
            for line in feed.iter_lines():
                watching.set()
                if line.startswith("data:") and "F-1" in line:
                    seen.append(json.loads(line[5:])["key"])
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert watching.wait(10)
    hub.http.post("/api/orders", json=[order("F-1")])
    watcher.join(10)
    assert seen == ["F-1"]


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
almost_orders = st.lists(
    st.fixed_dictionaries(
        {"order_id": st.text(max_size=70) | st.integers()},
        optional=dict.fromkeys(("address", "lat", "lon", "slot_from", "slot_to", "parcels", "floor", "tier"), junk),
    ),
    max_size=3,
)
POSTS = (
    "/api/orders",
    "/api/day/plan",
    "/api/roads/closures",
    "/api/orders/A-001/correction",
    "/api/promises/A-001/window",
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(POSTS),
    st.binary(max_size=60)
    | junk.map(_encoded := lambda v: json.dumps(v).encode("utf-8", "replace"))
    | almost_orders.map(_encoded),
)
def test_garbage_in_a_body_is_refused_by_name_and_the_hub_lives(hub: HubProcess, path: str, body: bytes) -> None:
    answer = hub.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert is_problem(answer, answer.status_code)
    assert hub.get("/healthz") == {"status": "live"}


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "x.localhost.evil.fi:1"])
def test_a_name_in_foreign_hands_that_leads_here_is_not_answered(hub: HubProcess, name: str) -> None:
    assert is_problem(hub.http.get("/api/orders", headers={"Host": name}), 421)


@pytest.mark.parametrize("name", ["LOCALHOST:80", "[::1]:80", "10.1.2.3:8080", "hub", "hub.local:80", "ops.example"])
def test_a_name_of_our_own_is_answered(hub: HubProcess, name: str) -> None:
    assert hub.http.get("/healthz", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:PORT.evil.fi", "http://u@127.0.0.1"]
)
def test_a_page_of_another_origin_changes_nothing(hub: HubProcess, origin: str) -> None:
    said = {"Origin": origin.replace("PORT", str(hub.port))}
    assert is_problem(hub.http.post("/api/customers/nobody/forget", headers=said), 403)


def test_a_page_of_our_own_origin_may_and_a_tracking_page_has_none(hub: HubProcess) -> None:
    own = {"Origin": f"http://127.0.0.1:{hub.port}"}
    assert is_problem(hub.http.post("/api/customers/nobody/forget", headers=own), 404)
    assert hub.http.post("/t/nonsense", data={"wish": "opt_out"}, headers={"Origin": "null"}).status_code == 404


HALF_A_PAIR = b'"\\ud800 Matti"'
"""JSON may hold it (RFC 8259, 8.2), UTF-8 may not: whoever writes it down fails."""


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/day/plan", b'{"by": %s}'),
        ("POST", "/api/roads/closures", b'{"ways": [WAY], "why": %s, "by": "anna"}'),
        ("POST", "/api/roads/closures", b'{"ways": [WAY], "why": "flood", "by": %s}'),
        ("POST", "/api/promises/A-001/window",
         b'{"opens": "2026-03-03T10:00+02:00", "closes": "2026-03-03T14:00+02:00", "by": %s}'),
        ("POST", "/api/customers/nobody/forget", b'{"by": %s}'),
        ("PUT", "/api/customers/half", b'{"name": "Half", "by": %s}'),
        ("PUT", "/api/vehicles/van-9", b'{"depot": "north", "shift_to": %s}'),
        ("POST", "/api/orders/A-001/link", b'{"days": NaN, "x": %s}'),
    ],
)  # fmt: skip
def test_text_nobody_can_write_down_ends_no_process(hub: HubProcess, method: str, path: str, body: bytes) -> None:
    way = hub.get("/api/roads/ways", near="60.1699,24.9384")[0]["way"]
    written = (body % HALF_A_PAIR).replace(b"WAY", b"%d" % way)
    answer = hub.http.request(method, path, content=written, headers={"Content-Type": "application/json"})
    assert is_problem(answer, 422)
    assert "Matti" not in answer.text
    assert hub.get("/healthz") == {"status": "live"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_garbage_as_a_table_is_refused_by_name_and_the_hub_lives(hub: HubProcess, body: bytes) -> None:
    answer = hub.http.post("/api/orders", content=body, headers={"Content-Type": "text/csv"})
    assert answer.status_code in (200, 422)
    assert hub.get("/healthz") == {"status": "live"}
