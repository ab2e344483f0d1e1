"""The shell around a core: commit first, then speak; a broken commit ends the run."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from shared.clock import Clock
from shared.logs import told
from shared.quantities import EpochMs
from shared.runner import JobFailed, Runner
from shared.steps import Consequences, Envelope, Job, Now, Row, Saved, Wake

PATIENCE_S = 10


class Diary:
    """A store that notes what it was given, in the order of everything else that happened."""

    def __init__(self, story: list[str]) -> None:
        self.story = story

    def saved(self) -> Saved:
        return {}

    def commit(self, rows: Sequence[Row]) -> None:
        self.story += [f"committed {row.key}" for row in rows]


class FullDisk(Diary):
    def commit(self, rows: Sequence[Row]) -> None:
        raise OSError("no space left on device")


class Echo:
    """A core that keeps, says and answers every word it is given."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        self.heard += events
        words = [event for event in events if isinstance(event, str)]
        return Consequences(
            rows=[Row("words", word, b"") for word in words],
            envelopes=[Envelope("t", word.encode()) for word in words],
            jobs=[Job(word) for word in words if word.startswith("work")],
            answers=dict(enumerate(events)),
        )

    def due(self, now: Now) -> list[Envelope]:
        return []

    def wake(self, now: Now) -> Wake:
        return Wake(None, None)


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def core() -> Echo:
    return Echo()


@pytest.fixture
def runner(story: list[str], core: Echo) -> Iterator[Runner]:
    def send(envelope: Envelope) -> bool:
        story.append(f"sent {envelope.payload.decode()}")
        return True

    def work(job: Job) -> str:
        if job.need == "work that fails":
            raise ValueError("the solver is gone")
        return f"done {job.need}"

    running = Runner(core, Diary(story), Clock.real(), send, work)
    thread = threading.Thread(target=running.run)
    thread.start()
    yield running
    running.stop()
    thread.join()


def test_a_word_is_committed_before_it_is_sent(runner: Runner, story: list[str]) -> None:
    assert runner.ask("hello").result(PATIENCE_S) == "hello"
    assert story == ["committed hello", "sent hello"]


def test_a_jobs_answer_comes_back_as_an_event(runner: Runner, core: Echo) -> None:
    runner.ask("work").result(PATIENCE_S)
    while "done work" not in core.heard:
        runner.ask("and now").result(PATIENCE_S)


def test_a_job_that_fails_is_an_event_too(runner: Runner, core: Echo) -> None:
    runner.ask("work that fails").result(PATIENCE_S)
    while not any(isinstance(event, JobFailed) for event in core.heard):
        runner.ask("and now").result(PATIENCE_S)


def test_what_a_library_says_of_a_text_is_neither_kept_nor_logged(capfd: pytest.CaptureFixture[str]) -> None:
    core = Echo()

    def work(_: Job) -> None:
        "Anna \ud800".encode()

    running = Runner(core, Diary([]), Clock.real(), lambda _: True, work)
    thread = threading.Thread(target=running.run)
    thread.start()
    running.ask("work").result(PATIENCE_S)
    while not any(isinstance(event, JobFailed) for event in core.heard):
        running.ask("and now").result(PATIENCE_S)
    running.stop()
    thread.join()
    (why,) = (event.why for event in core.heard if isinstance(event, JobFailed))
    assert why.startswith("UnicodeEncodeError at test_runner.py:")
    assert "Anna" not in why + capfd.readouterr().err


def test_what_we_and_the_system_say_of_an_error_is_kept() -> None:
    assert told(OSError("no space left on device")) == "OSError: no space left on device"
    assert told(KeyError("Anna")) == "KeyError"


def test_when_the_disk_does_not_take_it_nothing_is_sent_and_the_run_ends() -> None:
    sent: list[Envelope] = []
    broken = Runner(Echo(), FullDisk([]), Clock.real(), lambda e: not sent.append(e), lambda job: None)
    broken.post("hello")
    with pytest.raises(OSError, match="no space left"):
        broken.run()
    assert sent == []


def test_a_clock_setting_is_shared_to_the_millisecond() -> None:
    clock = Clock.starting(1_772_000_000_000, 60.0)
    assert Clock.from_setting(clock.setting()) == clock
    assert clock.now_ms() >= EpochMs(1_772_000_000_000)
