"""The driver's page over real sockets: long poll, idempotency, and whatever nonsense a client may send."""

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.dialogue import Asked, CountersAsked, HeadingSaid, Reply, ShiftSaid
from edge_agent.page import Page, PortTaken
from edge_agent.page.assets import assets, version

PATIENCE_S = 10


class Listener:
    """Answers like a core: remembers what was asked, and says what it was told to say."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.reply = Reply(200)

    def ask(self, event: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        if isinstance(event, CountersAsked):
            answer.set_result({"steps": 7})
        else:
            self.asked.append(event)
            answer.set_result(self.reply)
        return answer


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def page(listener: Listener) -> Iterator[Page]:
    page = Page("127.0.0.1", 0, listener.ask, lambda: 42)
    page.show(b'{"revision":1,"stops":[]}')
    page.start()
    yield page
    page.stop()


def ask(page: Page, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


def headers_of(page: Page, path: str) -> dict[str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return dict(answer.getheaders())
    finally:
        connection.close()


def post(page: Page, path: str, body: bytes, key: str = "k") -> tuple[int, str, bytes]:
    return ask(page, "POST", path, body, Content_Type="application/json", Idempotency_Key=key)


def test_the_day_is_answered_at_once_with_the_present_instant(page: Page) -> None:
    status, _, body = ask(page, "GET", "/api/day")
    assert (status, msgspec.json.decode(body)) == (200, {"now_ms": 42, "utc_offset_s": 0, "revision": 1, "stops": []})


def test_a_reader_of_the_present_revision_waits_for_the_next(page: Page) -> None:
    found: list[bytes] = []
    waiting = threading.Thread(target=lambda: found.append(ask(page, "GET", "/api/day?after=1")[2]))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    page.show(b'{"revision":2,"stops":[]}')
    waiting.join(PATIENCE_S)
    assert msgspec.json.decode(found[0])["revision"] == 2
    page.show(b'{"revision":1,"stops":[]}')


def test_the_page_loads_nothing_from_another_host(page: Page) -> None:
    status, kind, body = ask(page, "GET", "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    loaded = re.findall(rb'(?:src|href)="([^"]*)"', body)
    assert loaded
    assert [name for name in loaded if not name.startswith(b"/")] == []
    texts = [asset.content for asset in assets().values() if asset.content_type.startswith("text/")]
    assert [text for text in texts if re.search(rb"https?://", text)] == []


def test_every_file_the_page_names_is_served_under_a_strict_policy(page: Page) -> None:
    names = [name.decode() for name in re.findall(rb'(?:src|href)="(/[^"]*)"', ask(page, "GET", "/")[2])]
    assert {status for status, _, _ in (ask(page, "GET", name) for name in names)} == {200}
    policy = headers_of(page, "/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_files_are_kept_by_the_phone_only_under_their_version(page: Page) -> None:
    assert headers_of(page, f"/page.js?v={version()}")["Cache-Control"] == "max-age=31536000, immutable"
    assert headers_of(page, "/page.js?v=older")["Cache-Control"] == "no-cache"
    assert headers_of(page, "/")["Cache-Control"] == "no-store"


def test_what_is_said_reaches_the_core_with_its_key(page: Page, listener: Listener) -> None:
    assert post(page, "/api/heading", b'{"stop_id":"s1"}', key="abc")[0] == 200
    assert listener.asked[-1] == Asked("abc", HeadingSaid("s1"))
    assert post(page, "/api/shift", b'{"is":"begun"}', key="d")[0] == 200
    assert listener.asked[-1] == Asked("d", ShiftSaid("begun"))


def test_a_refusal_of_the_core_is_a_problem_in_words(page: Page, listener: Listener) -> None:
    listener.reply = Reply(422, "Proof incomplete", "lacks a signature")
    status, kind, body = post(page, "/api/heading", b'{"stop_id":"s1"}')
    listener.reply = Reply(200)
    assert (status, kind) == (422, "application/problem+json")
    problem = msgspec.json.decode(body)
    assert (problem["title"], problem["detail"]) == ("Proof incomplete", "lacks a signature")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "name"),
    [
        ("GET", "/nowhere", b"", {}, 404, "PathUnknown"),
        ("GET", "/api/shift", b"", {}, 405, "MethodNotAllowed"),
        ("POST", "/api/day", b"", {}, 405, "MethodNotAllowed"),
        ("POST", "/api/shift", b'{"is":"begun"}', {"Idempotency_Key": "k"}, 415, "NotJson"),
        ("POST", "/api/shift", b'{"is":"begun"}', {"Content_Type": "application/json"}, 400, "KeyMissing"),
        ("GET", "/api/day?after=x", b"", {}, 400, "RevisionGarbled"),
        ("POST", "/api/shift", b"x" * 70_000, {}, 413, "BodyTooLarge"),
        ("POST", "/api/shift", b"", {"Transfer_Encoding": "chunked"}, 411, "LengthMissing"),
        ("PATCH", "/", b"", {}, 501, "RequestGarbled"),
    ],
)
def test_each_kind_of_nonsense_has_its_name(
    page: Page, method: str, path: str, body: bytes, headers: dict[str, str], status: int, name: str
) -> None:
    before = page.refused[name]
    found, kind, answer = ask(page, method, path, body, **headers)
    assert (found, kind) == (status, "application/problem+json")
    assert msgspec.json.decode(answer)["title"] == name
    assert page.refused[name] == before + 1


GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=8,
    ).map(msgspec.json.encode),
    st.integers(1, 20_000).map(lambda depth: b"[" * depth),
    st.fixed_dictionaries(
        {"stop_id": st.text(max_size=300), "outcome": st.sampled_from(["attempted", "eaten"])},
        optional={"signature": st.text(max_size=70), "parcels_left": st.lists(st.text(max_size=5), max_size=3)},
    ).map(msgspec.json.encode),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/api/shift", "/api/heading", "/api/change", "/api/outcome"]), body=GARBAGE)
def test_garbage_in_a_body_is_answered_with_a_problem(page: Page, path: str, body: bytes) -> None:
    status, kind, _ = post(page, path, body)
    assert status == 200 or (status == 400 and kind == "application/problem+json")
    assert ask(page, "GET", "/healthz")[0] == 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda t: f"GET /{t} HTTP/1.1\r\n\r\n".encode())))
def test_garbage_instead_of_a_request_never_stops_the_page(page: Page, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=PATIENCE_S) as line:
        line.sendall(garbage)
        line.shutdown(socket.SHUT_WR)
        while line.recv(4096):
            pass
    assert ask(page, "GET", "/healthz")[0] == 200


def test_a_taken_port_is_named(page: Page) -> None:
    with pytest.raises(PortTaken, match="set page_port to another one"):
        Page("127.0.0.1", page.port, lambda _: Future(), lambda: 0)
