"""People on the network who never mean to be customers: connections held, bodies spoilt, doors tried."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from cloud_hub.access.bounds import network_of
from cloud_hub.access.setting import AccessSetting
from cloud_hub.web import connections
from cloud_hub.web.connections import Patient
from tests.fuzz.payloads import NAMES, as_json, bytes_of, spoilt
from tests.shells.access_house import House, a_house
from tests.shells.hub_parts import some_orders

UNBOUND = AccessSetting(requests_per_min=1_000_000, failures_per_min=1_000_000, wishes_per_min=1_000_000)


class Hasty(Patient):
    """The hub's own way, with less patience."""

    patience_s = 0.3


async def answers(scope: Any, receive: Any, send: Any) -> None:
    """Repeats a body; at /feed says something now and then for longer than anybody waits for a question."""
    request = Request(scope, receive)
    if scope["path"] == "/feed":

        async def pieces() -> Any:
            for _ in range(12):
                yield b"."
                await asyncio.sleep(0.1)

        await StreamingResponse(pieces())(scope, receive, send)
        return
    await PlainTextResponse(await request.body())(scope, receive, send)


@pytest.fixture
def port() -> Iterator[int]:
    """A server that speaks as the hub does."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(answers, http=Hasty, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


def is_closed_within(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na",
    ],
)
def test_who_asks_no_whole_question_is_not_waited_for(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(said)
        assert is_closed_within(idle, 5.0)


def test_a_second_question_in_drops_is_not_waited_for_either(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.recv(1) == b"H"
        slow.recv(10_000)
        with contextlib.suppress(OSError):
            for _ in range(20):
                slow.sendall(b"G")
                time.sleep(0.1)
        assert is_closed_within(slow, 5.0)


def test_an_answer_may_take_longer_than_any_question(port: int) -> None:
    assert httpx.get(f"http://127.0.0.1:{port}/feed", timeout=10).text == "." * 12


def test_there_are_only_so_many_connections_at_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hasty, "patience_s", 60.0)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    with contextlib.ExitStack() as opened:
        held = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(6)]
        assert [is_closed_within(one, 0.2) for one in reversed(held)] == [True] + 5 * [False]


def test_of_one_address_there_are_fewer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hasty, "patience_s", 60.0)
    monkeypatch.setattr(connections, "MOST_OF_ONE", 3)
    with contextlib.ExitStack() as opened:
        held = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        assert not is_closed_within(held[-1], 0.2)
        monkeypatch.setattr(connections, "HERE", ())
        assert is_closed_within(opened.enter_context(socket.create_connection(("127.0.0.1", port))), 1.0)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("fe80::1%eth0", "fe80::/64"),
        ("key:3f9a0c11d2e4", "key:3f9a0c11d2e4"),
        ("person:a::b", "person:a::b"),
    ],
)
def test_a_line_with_a_whole_network_of_addresses_is_counted_as_one(address: str, counted: str) -> None:
    assert network_of(address) == counted


def test_another_address_of_the_same_line_gains_no_more_tries(tmp_path: Path) -> None:
    with a_house(tmp_path, AccessSetting(failures_per_min=5)) as house:
        tried = [
            house.client(address=(f"2001:db8::{k:x}", 4_000)).get("/t/nonsense").status_code for k in range(12)
        ]  # fmt: skip
        assert tried == [404] * 5 + [429] * 7


# Bodies and paths.


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One hub with two orders, whose bounds nobody reaches."""
    with a_house(tmp_path_factory.mktemp("house"), UNBOUND) as opened:
        orders = [{**one, "email": "a@b.example", "note": "ring"} for one in some_orders(2)]
        assert opened.as_role("admin").post("/api/orders", json=orders).json()["accepted"] == ["A-000", "A-001"]
        yield opened


BODIES: dict[str, Any] = {
    "POST /api/orders": [{**some_orders(1)[0], "order_id": "A-9", "note": "x", "email": "a@b.example"}],
    "POST /api/orders/A-000/correction": {"lat": 60.17, "lon": 24.94, "by": "anna"},
    "POST /api/orders/A-000/link": {"days": 7},
    "POST /api/keys": {"name": "k", "role": "viewer", "days": 3, "by": "anna", "depots": ["north"]},
    "POST /api/day/plan": {"by": "anna"},
    "POST /api/promises/A-000/window": {"from": "10:00", "to": "12:00", "by": "anna"},
    "PUT /api/customers/A-000": {"email": "a@b.example", "phone": "+358401234567", "language": "en", "by": "anna"},
    "POST /api/customers/A-001/forget": {"by": "anna"},
    "PUT /api/vehicles/van-n": {"depot_id": "north", "day": "2026-03-03", "by": "anna"},
    "POST /api/roads/closures": {"ways": [1], "why": "works", "by": "anna"},
    "POST /api/dead-letters/van-n/b/events/000000000001/retry": {"by": "anna"},
    "POST /api/enrol": {"secret": "AAAA", "request": "AAAA", "agent": "van-1"},
    "POST /api/renew": {"certificate": "x", "signature": "AAAA"},
}  # fmt: skip


def test_a_spoilt_body_never_breaks_the_hub(house: House) -> None:
    admin = house.as_role("admin")

    @settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(BODIES)), st.data())
    def holds(route: str, data: st.DataObject) -> None:
        method, _, path = route.partition(" ")
        body = data.draw(bytes_of(data.draw(spoilt(BODIES[route]))))
        answer = admin.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500 or answer.status_code == 503, answer.text

    holds()
    assert admin.get("/api/orders/A-000").status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"[" * 90_000, b'{"a":' * 20_000, b'{"by":' + b"9" * 5_000 + b"}", b"NaN", b'"\\ud800"', b"\xff", b"", b"null"],
)
def test_a_body_that_is_no_body_is_refused_in_words(house: House, body: bytes) -> None:
    admin = house.as_role("admin")
    for route in sorted(BODIES):
        method, _, path = route.partition(" ")
        answer = admin.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500 or answer.status_code == 503


def test_odd_names_in_paths_and_questions_find_nothing_and_break_nothing(house: House) -> None:
    admin = house.as_role("admin")
    for name in NAMES:
        odd = quote(name.encode("utf-8", "surrogatepass"), safe="")[:2_000]
        for path in (
            f"/api/orders/{odd}", f"/api/telemetry/{odd}?channel={odd}&from_ms=99999999999999999999&to_ms={odd}",
            f"/api/decisions/{odd}", f"/api/customers/{odd}", f"/t/{odd}", f"/depots/{odd}", f"/api/objects/{odd}",
            f"/api/decisions?about={odd}&kind={odd}&most={odd}", f"/api/accesses?about={odd}&day={odd}",
            f"/sign-in?next={odd}&why={odd}", f"/sign-in/back?state={odd}&code={odd}&error={odd}",
        ):  # fmt: skip
            answer = admin.get(path)
            assert answer.status_code < 500, path
            assert "<script>alert" not in answer.text or not answer.headers["content-type"].startswith("text/html")


def test_a_customer_cannot_break_the_hub_by_what_they_say(house: House) -> None:
    token = house.as_role("admin").post("/api/orders/A-000/link").json()["token"]
    customer = house.client()
    form = {"content-type": "application/x-www-form-urlencoded"}
    for name in NAMES:
        odd = quote(name.encode("utf-8", "surrogatepass"), safe="")
        for field in ("note", "wish", "safe_place", "neighbour", "day", "window"):
            body = f"wish=note&{field}={odd}".encode()
            assert customer.post(f"/t/{token}", content=body, headers=form).status_code < 500
        shown = customer.get(f"/t/{token}?lang={odd}")
        assert shown.status_code < 500
        assert "<script>alert" not in shown.text
    assert as_json(NAMES)


# What an answer says of itself, and names that would hurt.


def test_what_is_for_one_caller_is_kept_framed_and_guessed_by_nobody(house: House) -> None:
    admin = house.as_role("admin")
    for path in ("/", "/api/orders", "/api/orders/A-000", "/api/fleet", "/depots/north", "/api/me", "/api/nothing"):
        said = admin.get(path).headers
        assert said["cache-control"] == "no-store"
        assert said["x-content-type-options"] == "nosniff"
        assert said["x-frame-options"] == "DENY"
    assert "script-src" not in admin.get("/").headers["content-security-policy"]
    assert "cache-control" not in house.client().get("/static-offline-docs/swagger-ui.css").headers


@pytest.mark.parametrize("name", ["+", "#", "hub", "a\0b", "a\nb", "\u202e", "x" * 65])
def test_no_vehicle_has_a_name_that_a_broker_would_end_the_hubs_connection_for(house: House, name: str) -> None:
    day = {"depot": "north", "shift_from": "08:00", "shift_to": "16:30"}
    assert house.as_role("operator").put(f"/api/vehicles/{quote(name)}", json=day).status_code == 422
