"""The driver's page over real sockets: long poll, idempotency, and whatever nonsense a client may send."""

import hashlib
import http.client
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zxingcpp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.dialogue import (
    Asked,
    CountersAsked,
    Entry,
    HeadingSaid,
    ObjectSaid,
    Reply,
    ScanSaid,
    SessionSaid,
    ShiftSaid,
)
from edge_agent.page import CertificateUnusable, Page, PortTaken
from edge_agent.page.assets import assets, version
from tests.needs import needs

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
    assert headers_of(page, f"/core.js?v={version()}")["Cache-Control"] == "max-age=31536000, immutable"
    assert headers_of(page, "/core.js?v=older")["Cache-Control"] == "no-cache"
    assert headers_of(page, "/")["Cache-Control"] == "no-store"


def test_what_is_said_reaches_the_core_with_its_key(page: Page, listener: Listener) -> None:
    assert post(page, "/api/heading", b'{"stop_id":"s1"}', key="abc")[0] == 200
    assert listener.asked[-1] == Asked("abc", HeadingSaid("s1"))
    assert post(page, "/api/shift", b'{"is":"begun"}', key="d")[0] == 200
    assert listener.asked[-1] == Asked("d", ShiftSaid("begun"))


def turned_away(held: list[socket.socket], most: int) -> list[socket.socket]:
    """The connections that got no place, which are closed at once."""
    deadline = time.monotonic() + PATIENCE_S
    closed: list[socket.socket] = []
    while len(closed) < most and time.monotonic() < deadline:
        closed = select.select(held, [], [], 0.05)[0]
    return closed


def test_who_holds_connections_open_does_not_keep_the_driver_out(page: Page) -> None:
    held = [socket.create_connection(("127.0.0.1", page.port), PATIENCE_S) for _ in range(80)]
    for each in held:
        each.sendall(b"POST /api/scan-image HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n")
    closed = turned_away(held, 56)
    driver = http.client.HTTPConnection("127.0.0.1", page.port, PATIENCE_S, source_address=("127.0.0.2", 0))
    driver.request("GET", "/api/day")
    assert (len(closed), driver.getresponse().status) == (56, 200)
    driver.close()
    for each in held:
        each.close()


@pytest.mark.parametrize("path", ["/api/outcome", "/api/objects?kind=photo&stop_id=s1", "/api/scan", "/api/session"])
def test_nothing_is_taken_before_the_core_has_said_who_may_enter(path: str) -> None:
    listener = Listener()
    waking = Page("127.0.0.1", 0, listener.ask, lambda: 42)
    waking.first_step_within_s = 0.05
    waking.start()
    kind = "image/png" if "objects" in path else "application/json"
    status, _, body = ask(waking, "POST", path, b"{}", Content_Type=kind, Idempotency_Key="k")
    waking.stop()
    assert (status, msgspec.json.decode(body)["title"]) == (503, "NotReady")
    assert listener.asked == []


def test_what_is_said_while_the_agent_wakes_waits_for_who_may_enter() -> None:
    listener = Listener()
    waking = Page("127.0.0.1", 0, listener.ask, lambda: 42)
    waking.start()
    said: list[int] = []
    speaking = threading.Thread(target=lambda: said.append(post(waking, "/api/shift", b'{"is":"begun"}')[0]))
    speaking.start()
    speaking.join(0.2)
    assert (listener.asked, speaking.is_alive()) == ([], True)
    waking.admit(msgspec.json.encode(Entry(True)))
    waking.show(b'{"revision":1,"stops":[]}')
    speaking.join(PATIENCE_S)
    waking.stop()
    assert (said, listener.asked) == ([401], [])


def test_what_is_refused_is_logged_without_anybodys_words(page: Page, capfd: pytest.CaptureFixture[str]) -> None:
    page.refused.clear()
    ask(page, "GET", "/Anna/Mannerheimintie?code=Anna")
    ask(page, "GET", "/api/day?after=Anna")
    post(page, "/api/shift", b'{"is":"Anna"}')
    post(page, "/api/shift", b'{"is":"begun"}', key="Anna" * 60)
    with socket.create_connection(("127.0.0.1", page.port)) as plain:
        plain.sendall(b"GET /Anna Mannerheimintie HTTP/1.1\r\n\r\n")
        plain.recv(1000)
    said = capfd.readouterr().err
    assert said.count("page_refused") == 5
    assert "Anna" not in said


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


# Who may come in.


@pytest.fixture
def locked(listener: Listener) -> Iterator[Page]:
    """A page whose day nobody may see yet."""
    page = Page("127.0.0.1", 0, listener.ask, lambda: 42)
    page.admit(msgspec.json.encode(Entry(is_locked=True)))
    page.show(b'{"revision":1,"stops":[{"address":"Liisankatu 20"}]}')
    page.start()
    yield page
    page.stop()
    listener.reply = Reply(200)


def sign_in(page: Page, key: str = "k1") -> str:
    """Give the code; the cookie that comes back."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=PATIENCE_S)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    connection.request("POST", "/api/session", b'{"code":"123456"}', headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.getheader("Set-Cookie", "")


def test_a_locked_day_leaves_by_no_path_without_the_token(locked: Page) -> None:
    found = [ask(locked, "GET", path) for path in ("/", "/shell", "/api/day", "/api/day?after=7", "/api/counters")]
    assert [status for status, _, _ in found] == [200, 200, 401, 401, 200]
    assert [body for _, _, body in found if b"Liisankatu" in body] == []


@pytest.mark.parametrize(
    "cookie", ["", "shift=", "shift=0000", "shift=" + "x" * 5000, 'shift="', "a=b; shift=1; shift=2"]
)
def test_a_cookie_nobody_was_given_opens_nothing(locked: Page, cookie: str) -> None:
    assert ask(locked, "GET", "/api/day", Cookie=cookie)[0] == 401


def test_nothing_is_taken_without_the_token(locked: Page, listener: Listener) -> None:
    listener.asked.clear()
    bodies = {"/api/heading": b'{"stop_id":"s1"}', "/api/scan": b'{"text":"1"}', "/api/shift": b'{"is":"begun"}'}
    assert {post(locked, path, body)[0] for path, body in bodies.items()} == {401}
    image = {"Content_Type": "image/png", "Idempotency_Key": "k"}
    assert ask(locked, "POST", "/api/objects?kind=photo&stop_id=s1", b"png", **image)[0] == 401
    grey = {"Content_Type": "application/octet-stream", "Idempotency_Key": "k"}
    assert ask(locked, "POST", "/api/scan-image?width=1&height=1", b"x", **grey)[0] == 401
    assert listener.asked == []


def test_the_right_code_gives_a_token_the_core_knows_only_by_its_hash(locked: Page, listener: Listener) -> None:
    listener.asked.clear()
    cookie = sign_in(locked)
    token = cookie.partition("=")[2].partition(";")[0]
    said = listener.asked[0].said
    assert said == SessionSaid("123456", hashlib.sha256(token.encode()).hexdigest())
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    locked.admit(msgspec.json.encode(Entry(True, (said.token_digest,))))
    status, _, body = ask(locked, "GET", "/api/day", Cookie=f"shift={token}")
    assert (status, b"Liisankatu" in body) == (200, True)


def test_a_sign_in_said_twice_gets_the_same_token_and_another_one_another(locked: Page) -> None:
    first, again, other = sign_in(locked, "k1"), sign_in(locked, "k1"), sign_in(locked, "k2")
    assert first == again != other


def test_a_wrong_code_gets_no_cookie_and_too_many_are_told_how_long_to_wait(locked: Page, listener: Listener) -> None:
    listener.reply = Reply(403, "CodeWrong", "not the code")
    assert sign_in(locked) == ""
    listener.reply = Reply(429, "TooManyCodes", "wait", retry_after_s=40)
    connection = http.client.HTTPConnection("127.0.0.1", locked.port, timeout=PATIENCE_S)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k9"}
    connection.request("POST", "/api/session", b'{"code":"123456"}', headers)
    answer = connection.getresponse()
    told = msgspec.json.decode(answer.read())
    connection.close()
    assert (answer.status, answer.getheader("Retry-After"), told["retry_after_s"]) == (429, "40", 40)


def test_who_waits_for_the_day_is_sent_away_when_the_shift_is_over(locked: Page) -> None:
    locked.admit(msgspec.json.encode(Entry(is_locked=False)))
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(ask(locked, "GET", "/api/day?after=1")[0]))
    waiting.start()
    locked.admit(msgspec.json.encode(Entry(is_locked=True)))
    waiting.join(PATIENCE_S)
    assert found == [401]


# Pictures.


def post_grey(page: Page, width: object, height: object, body: bytes) -> tuple[int, Any]:
    headers = {"Content_Type": "application/octet-stream", "Idempotency_Key": "k"}
    status, _, answer = ask(page, "POST", f"/api/scan-image?width={width}&height={height}", body, **headers)
    return status, msgspec.json.decode(answer)


def drawn(text: str, form: str) -> tuple[int, int, bytes]:
    made = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, form))
    grey = np.kron(np.array(zxingcpp.write_barcode_to_image(made)), np.ones((3, 3), np.uint8))
    grey = np.pad(grey, 40, constant_values=240)
    return grey.shape[1], grey.shape[0], grey.tobytes()


@pytest.mark.parametrize(
    ("form", "text"),
    [("Code128", "JJFI65432100000012345"), ("QRCode", "WW:s1/1"), ("EAN13", "6438158601758"), ("DataMatrix", "ABC-1")],
)
def test_a_barcode_in_a_picture_is_said_to_the_core(page: Page, listener: Listener, form: str, text: str) -> None:
    listener.asked.clear()
    listener.reply = Reply(200, found={"parcel": "WW:s1/1", "stop_id": "s1"})
    status, body = post_grey(page, *drawn(text, form))
    listener.reply = Reply(200)
    assert (status, body) == (200, {"ok": True, "parcel": "WW:s1/1", "stop_id": "s1"})
    assert listener.asked[0].said == ScanSaid(text)


@pytest.mark.parametrize(
    ("width", "height", "body", "status", "name"),
    [
        (100, 100, b"\xee" * 10_000, 404, "NoBarcode"),
        (100, 100, b"\xee" * 9_999, 400, "PictureGarbled"),
        (0, 0, b"", 400, "PictureGarbled"),
        ("x", 10, b"", 400, "PictureGarbled"),
        (1, 90_000, b"\xee" * 90_000, 400, "PictureGarbled"),
        (2000, 2000, b"\xee" * 4_000_000, 413, "BodyTooLarge"),
    ],
)
def test_a_picture_without_a_barcode_is_named(
    page: Page, width: object, height: object, body: bytes, status: int, name: str
) -> None:
    found, problem = post_grey(page, width, height, body)
    assert (found, problem["title"]) == (status, name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(0, 40), height=st.integers(0, 40), noise=st.binary(max_size=1_600))
def test_noise_instead_of_a_picture_never_stops_the_page(page: Page, width: int, height: int, noise: bytes) -> None:
    assert post_grey(page, width, height, noise)[0] in (200, 400, 404)
    assert ask(page, "GET", "/healthz")[0] == 200


def test_a_signature_reaches_the_core_as_bytes_and_its_hash_comes_back(page: Page, listener: Listener) -> None:
    content = b"\x89PNG\r\n\x1a\n..."
    listener.reply = Reply(200, found={"digest": hashlib.sha256(content).hexdigest()})
    headers = {"Content_Type": "image/png", "Idempotency_Key": "k"}
    status, _, body = ask(page, "POST", "/api/objects?kind=signature&stop_id=s1", content, **headers)
    listener.reply = Reply(200)
    assert (status, msgspec.json.decode(body)["digest"]) == (200, hashlib.sha256(content).hexdigest())
    assert listener.asked[-1].said == ObjectSaid("signature", "s1", "image/png", content)


@pytest.mark.parametrize(
    ("query", "media_type", "size", "status", "name"),
    [
        ("kind=drawing&stop_id=s1", "image/png", 10, 400, "BodyGarbled"),
        ("kind=photo", "image/png", 10, 400, "BodyGarbled"),
        ("kind=photo&stop_id=s1", "image/gif", 10, 415, "MediaTypeUnknown"),
        ("kind=photo&stop_id=s1", "application/json", 10, 415, "MediaTypeUnknown"),
        ("kind=photo&stop_id=s1", "image/jpeg", 400_001, 413, "BodyTooLarge"),
    ],
)
def test_an_object_that_is_none_is_named(
    page: Page, query: str, media_type: str, size: int, status: int, name: str
) -> None:
    headers = {"Content_Type": media_type, "Idempotency_Key": "k"}
    found, _, body = ask(page, "POST", f"/api/objects?{query}", b"x" * size, **headers)
    assert (found, msgspec.json.decode(body)["title"]) == (status, name)


# Over TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate this test signed itself, and its key."""
    program = shutil.which("openssl")
    needs(program, "openssl: apt install openssl")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "page.pem", folder / "page.key"
    subprocess.run(
        [str(program), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(key), "-out", str(made), "-days", "2", "-subj", "/CN=van-1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(made), str(key)


def test_with_a_certificate_the_page_speaks_tls_and_marks_its_cookie(
    listener: Listener, certificate: tuple[str, str]
) -> None:
    page = Page("127.0.0.1", 0, listener.ask, lambda: 42, certificate=certificate[0], key=certificate[1])
    page.show(b'{"revision":1,"stops":[]}')
    page.start()
    try:
        # Somebody who never shakes hands, and somebody who speaks in clear, stop nobody.
        mute = socket.create_connection(("127.0.0.1", page.port), timeout=PATIENCE_S)
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(page, "GET", "/healthz")
        context = ssl.create_default_context(cafile=certificate[0])
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", page.port, timeout=PATIENCE_S, context=context)
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        connection.request("POST", "/api/session", b'{"code":"123456"}', headers)
        answer = connection.getresponse()
        assert (answer.status, "; Secure" in answer.getheader("Set-Cookie", "")) == (200, True)
        connection.close()
        mute.close()
    finally:
        page.stop()


def test_a_certificate_that_cannot_be_used_is_named(certificate: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match="expected PEM files that belong together"):
        Page("127.0.0.1", 0, lambda _: Future(), lambda: 0, certificate=certificate[0], key=str(tmp_path / "none"))
