"""Real `firmware-sim` processes: a van against a page at the other end of its wire, and a shop's inbox."""

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.days import random_depot, random_errands
from firmware_sim.luck import Luck
from shared.citymap import CityMap, shipped_city
from shared.clock import SETTING, Clock
from shared.labels import read_label

SPEED = 3000.0
MORNING_MS = 1_735_711_200_000  # 08:00 in Helsinki on 1 January 2025.


@pytest.fixture(scope="module")
def city_folder() -> Path:
    return shipped_city()


class Page:
    """An agent's page with the memory of an agent: what it has taken survives `kill`, who is connected does not."""

    def __init__(self, city: CityMap, stops: int) -> None:
        luck = Luck("page")
        depot = random_depot(city, luck)
        self.errands = [
            {**errand_json, "slot": [MORNING_MS - 3_600_000, MORNING_MS + 36_000_000], "open_hours": None}
            for errand_json in map(_as_json, random_errands(city, luck, MORNING_MS)[:stops])
        ]
        self.depot = {
            "name": "depot",
            "position": list(_pair(depot.position)),
            "gateway": list(_pair(depot.gateway)),
            "stem_s": 120,
        }
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.repeats = 0
        self.scans: list[str] = []
        self.loses_answers = 0
        self.code = ""
        self.sessions: set[str] = set()
        self.codes_typed: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.revision = 1
        self.changed = threading.Condition()
        self.port = 0
        self.start()

    def start(self) -> None:
        page = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/board":
                    self._answer(
                        200, {"vans": [{"agent": "van-9", "code": "1"}, {"agent": "van-1", "code": page.code}]}
                    )
                    return
                if page.code and self.headers.get("Cookie") not in page.sessions:
                    self._answer(401, {"title": "ShiftLocked"})
                    return
                after = int(self.path.partition("after=")[2] or -1)
                with page.changed:
                    page.changed.wait_for(lambda: page.revision > after or not page.is_up, 20)
                    self._answer(200, page.day())

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/api/session":
                    self._answer(*page.opened(json.loads(content)["code"]))
                    return
                if page.code and self.headers.get("Cookie") not in page.sessions:
                    self._answer(401, {"title": "ShiftLocked"})
                    return
                if self.path.startswith("/api/objects?"):
                    page.pictures[hashlib.sha256(content).hexdigest()] = content
                    self._answer(200, {"ok": True})
                    return
                body = json.loads(content)
                answer = page.take(self.path, self.headers["Idempotency-Key"], body)
                if self.path == "/api/outcome" and page.loses_answers > 0:
                    page.loses_answers -= 1
                    self.close_connection = True
                    return
                self._answer(*answer)

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                text = json.dumps(content).encode()
                if not page.is_up:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                if "cookie" in content:
                    self.send_header("Set-Cookie", f"{content['cookie']}; HttpOnly; SameSite=Strict; Path=/")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.is_up = True
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Request)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> None:
        with self.changed:
            self.is_up = False
            self.scans.clear()
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def day(self) -> dict[str, Any]:
        done = [body["stop_id"] for path, body in self.posts if path == "/api/outcome"]
        return {
            "revision": self.revision,
            "agent": "van-1",
            "shift": "under_way" if any(path == "/api/shift" for path, _ in self.posts) else "waiting",
            "depart_ms": MORNING_MS,
            "break": {
                "earliest_ms": MORNING_MS,
                "latest_ms": MORNING_MS + 2_400_000,
                "duration_s": 600,
                "taken": False,
            },
            "depot": self.depot,
            "stops": [errand for errand in self.errands if errand["stop_id"] not in done],
            "done": [{"stop_id": stop_id, "outcome": "", "left_ms": 0} for stop_id in done],
            "change": {"change_id": "c1", "why": "a street is closed", "before": [], "after": []},
        }

    def take(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if not self.is_up:
                return 503, {}
            if key in self.answers:
                self.repeats += 1
                return self.answers[key]
            answer: tuple[int, dict[str, Any]] = (200, {"ok": True})
            if path == "/api/outcome" and body["outcome"].startswith("delivered_"):
                parcels = next(e["parcels"] for e in self.errands if e["stop_id"] == body["stop_id"])
                if lacking := set(parcels) - set(self.scans):
                    answer = (422, {"title": "proof incomplete", "detail": f"scans of {sorted(lacking)} are missing"})
            if answer[0] == 200:
                self.posts.append((path, body))
                self.revision += 1
                self.changed.notify_all()
            self.answers[key] = answer
            return answer

    def opened(self, code: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            self.codes_typed.append(code)
            if code != self.code:
                return 403, {"title": "CodeWrong"}
            cookie = f"shift=token{len(self.codes_typed)}"
            self.sessions.add(cookie)
            return 200, {"ok": True, "cookie": cookie}

    def listen_to_scanner(self, port: int) -> None:
        def listen() -> None:
            with socket.create_connection(("127.0.0.1", port)) as line, line.makefile("r", newline="\r") as labels:
                for label in labels:
                    with self.changed:
                        self.scans.append(read_label(label.strip()).canonical)
                        self.changed.notify_all()

        threading.Thread(target=listen, daemon=True).start()

    def outcomes(self) -> list[str]:
        return [body["stop_id"] for path, body in self.posts if path == "/api/outcome"]

    def await_that(self, is_so: Any, timeout_s: float = 40) -> None:
        with self.changed:
            assert self.changed.wait_for(is_so, timeout_s), f"after {timeout_s} s: {self.posts}"


def _pair(position: Any) -> tuple[float, float]:
    return position.lat, position.lon


def _as_json(errand: Any) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(errand))


@contextmanager
def running(*arguments: str, clock: Clock | None = None) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A `firmware-sim` process and the ports it says it has opened."""
    environment = {**os.environ, **({SETTING: clock.setting()} if clock else {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "firmware_sim", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first, f"the process ended: {process.communicate()[1]}"
        threading.Thread(target=lambda: process.stderr and process.stderr.read(), daemon=True).start()
        yield process, json.loads(first)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def await_driven(port: int, stops: int) -> None:
    """Wait until the van has served so many stops, whoever knows of it."""
    while len(told(port, b'{"do":"state"}')[0]["driven"]) < stops:
        time.sleep(0.05)  # The control port tells only who asks.


def told(port: int, *lines: bytes) -> list[dict[str, Any]]:
    """What the control port answers."""
    with socket.create_connection(("127.0.0.1", port)) as line, line.makefile("rb") as answers:
        line.sendall(b"".join(text + b"\n" for text in lines))
        return [json.loads(answers.readline()) for _ in lines]


def van(page: Page, city_folder: Path, *more: str, starts_ms: int = MORNING_MS) -> Any:
    arguments = ("--name", "van-1", "--page", f"http://127.0.0.1:{page.port}", "--city", str(city_folder), *more)
    return running("van", *arguments, clock=Clock.starting(starts_ms, SPEED))


def test_a_van_serves_every_stop_of_its_page_and_reports_the_end_of_the_shift(city_folder: Path) -> None:
    page = Page(CityMap.load(city_folder), 4)
    with van(page, city_folder) as (_, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: ("/api/shift", {"is": "ended"}) in page.posts)
    page.kill()
    assert sorted(page.outcomes()) == sorted(errand["stop_id"] for errand in page.errands)
    assert page.posts[0] == ("/api/shift", {"is": "begun"}) or page.posts[0][0] == "/api/change"
    shifts = [body["is"] for path, body in page.posts if path == "/api/shift"]
    assert shifts == ["begun", "on_break", "off_break", "ended"]
    assert [path for path, _ in page.posts].count("/api/change") == 1


def test_a_page_that_is_killed_and_comes_back_misses_no_outcome_and_takes_none_twice(city_folder: Path) -> None:
    page = Page(CityMap.load(city_folder), 3)
    with van(page, city_folder) as (_, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: len(page.outcomes()) >= 1)
        page.kill()
        await_driven(ports["control_port"], 2)
        page.start()
        page.await_that(lambda: ("/api/shift", {"is": "ended"}) in page.posts)
    page.kill()
    assert sorted(page.outcomes()) == sorted(errand["stop_id"] for errand in page.errands)


def test_a_report_whose_answer_was_lost_is_repeated_under_its_key(city_folder: Path) -> None:
    page = Page(CityMap.load(city_folder), 2)
    page.loses_answers = 2
    with van(page, city_folder) as (_, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: len(page.outcomes()) == 2)
    page.kill()
    assert page.repeats >= 1
    assert len(set(page.outcomes())) == 2


def test_a_driver_reads_the_code_off_the_depots_screen_and_types_it_again_when_asked(
    city_folder: Path, tmp_path: Path
) -> None:
    page = Page(CityMap.load(city_folder), 3)
    page.code = "271828"
    settings = tmp_path / "van.toml"
    url = f"http://127.0.0.1:{page.port}"
    settings.write_text(f'name = "van-1"\npage = "{url}"\nboard = "{url}/board"\ncity = "{city_folder}"\n')
    with running("van", "--settings", str(settings), clock=Clock.starting(MORNING_MS, SPEED)) as (_, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: len(page.outcomes()) >= 1)
        with page.changed:
            page.sessions.clear()
        page.await_that(lambda: ("/api/shift", {"is": "ended"}) in page.posts)
    page.kill()
    assert set(page.codes_typed) == {"271828"}
    assert len(page.codes_typed) >= 2
    assert sorted(page.outcomes()) == sorted(errand["stop_id"] for errand in page.errands)


def test_a_driver_shows_signature_and_photograph_before_naming_them(city_folder: Path) -> None:
    page = Page(CityMap.load(city_folder), 3)
    for errand in page.errands:
        errand |= {"service": "signature", "is_business": True}
    page.errands[0] |= {"service": "hand_over", "safe_place": "the porch"}
    with van(page, city_folder) as (_, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: len(page.outcomes()) == 3)
    page.kill()
    named = [body[kind] for path, body in page.posts if path == "/api/outcome" for kind in ("signature", "photo")]
    assert len(page.pictures) >= 2
    assert {digest for digest in named if digest} == set(page.pictures)
    assert all(content.startswith(b"\x89PNG") for content in page.pictures.values())


def test_gnss_of_a_van_under_way_speaks_nmea_from_inside_the_town(city_folder: Path) -> None:
    city = CityMap.load(city_folder)
    page = Page(city, 3)
    with van(page, city_folder) as (_, ports):
        page.await_that(lambda: any(path == "/api/heading" for path, _ in page.posts))
        with socket.create_connection(("127.0.0.1", ports["gnss_port"])) as line, line.makefile("r") as sentences:
            said = [next(sentences) for _ in range(4)]
    page.kill()
    assert all(sentence.startswith(("$GNRMC", "$GNGGA")) for sentence in said)
    assert any(f",{int(city.bounds[0])}" in sentence for sentence in said)


def test_a_street_closed_ahead_is_found_closed_and_the_stops_are_served_all_the_same(city_folder: Path) -> None:
    page = Page(CityMap.load(city_folder), 2)
    with van(page, city_folder) as (_, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: any(path == "/api/heading" for path, _ in page.posts))
        closed = told(ports["control_port"], b'{"do":"close_way"}', b'{"do":"slow","factor":1.5}')
        page.await_that(lambda: ("/api/shift", {"is": "ended"}) in page.posts)
    page.kill()
    assert closed[0]["ok"]
    assert closed[1] == {"ok": True, "factor": 1.5}
    assert len(page.outcomes()) == 2


def test_a_van_lives_through_everything_a_bad_day_brings(city_folder: Path) -> None:
    page = Page(CityMap.load(city_folder), 3)
    a_quarter_past_nine_ms = MORNING_MS + 75 * 60_000
    with van(page, city_folder, "--day", "everything", starts_ms=a_quarter_past_nine_ms) as (process, ports):
        page.listen_to_scanner(ports["scanner_port"])
        page.await_that(lambda: ("/api/shift", {"is": "ended"}) in page.posts)
        assert process.poll() is None
    page.kill()
    assert len(page.outcomes()) == 3


def test_the_control_port_of_a_van_without_a_plan_says_so(city_folder: Path) -> None:
    arguments = ("--name", "van-1", "--page", "http://127.0.0.1:1", "--city", str(city_folder))
    with running("van", *arguments) as (_, ports):
        state, refused, nonsense = told(ports["control_port"], b'{"do":"state"}', b'{"do":"slow","factor":2}', b"x")
    assert state["phase"] == "depot"
    assert "no plan yet" in refused["error"]
    assert "close_way" in nonsense["error"]


def test_a_van_with_nonsense_in_its_settings_does_not_start_and_says_why(tmp_path: Path) -> None:
    settings = tmp_path / "van.toml"
    settings.write_text('name = "van-1"\npage = "http://127.0.0.1:8001"\nnumber = "one"\n')
    said = subprocess.run(
        [sys.executable, "-m", "firmware_sim", "van", "--settings", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "number" in said.stderr


def posted(port: int, path: str, body: bytes = b"", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def received(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/received")
    return json.loads(connection.getresponse().read())


def test_an_inbox_keeps_an_event_once_in_either_mode_and_fails_when_told() -> None:
    structured = json.dumps(
        {"specversion": "1.0", "id": "2", "source": "/hub", "type": "window_moved", "subject": "o7", "data": {"a": 1}}
    ).encode()
    binary = {"ce_id": "1", "ce_source": "/hub", "ce_type": "window_moved", "ce_specversion": "1.0"}
    with running("inbox") as (_, ports):
        port = ports["port"]
        assert posted(port, "/fail?n=1") == 200
        assert posted(port, "/", b"{}", Content_Type="application/json", **binary) == 503
        assert posted(port, "/", b"{}", Content_Type="application/json", **binary) == 202
        assert posted(port, "/", b"{}", Content_Type="application/json", **binary) == 200
        assert posted(port, "/", structured, Content_Type="application/cloudevents+json") == 202
        assert posted(port, "/", b"\xff{", Content_Type="application/cloudevents+json") == 400
        kept = received(port)
    assert [(event["id"], event["times"]) for event in kept] == [("1", 2), ("2", 1)]
    assert kept[1]["subject"] == "o7"
    assert kept[1]["data"] == {"a": 1}


def test_drive_days_writes_the_same_rows_for_the_same_seeds(city_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "firmware_sim", "drive-days", "--seeds", "3:5", "--city", str(city_folder)]
    first, second = tmp_path / "a", tmp_path / "b"
    subprocess.run([*command, "--out", str(first)], check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    subprocess.run([*command, "--out", str(second)], check=True, env={**os.environ, "PYTHONHASHSEED": "2"})
    assert (first / "legs.csv").read_bytes() == (second / "legs.csv").read_bytes()
    assert (first / "stops.csv").read_bytes() == (second / "stops.csv").read_bytes()
