"""Whoever watches is told of an agent's readings once for many commits."""

import asyncio

import pytest

from cloud_hub.storage import ReadingsCame
from cloud_hub.web import feed as feeds
from cloud_hub.web.feed import Feed
from shared.quantities import EpochMs
from shared.work import AgentId

VAN = AgentId("van-1")


def test_readings_of_many_commits_are_one_event_for_each_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "GATHER_S", 0.01)

    async def watched() -> list[bytes]:
        feed = Feed()
        watching = feed.watch()
        said = [await anext(watching)]
        feed.hear([ReadingsCame(VAN, EpochMs(20), 10), ReadingsCame(AgentId("van-2"), EpochMs(5), 1)])
        feed.hear([ReadingsCame(VAN, EpochMs(10), 7)])
        feed.hear([])
        said += [await anext(watching), await anext(watching)]
        feed.hear([ReadingsCame(VAN, EpochMs(30), 1)])
        return [*said[1:], await anext(watching)]

    assert asyncio.run(watched()) == [
        b'event: readings\ndata: {"key":"van-1","doc":{"agent":"van-1","to_ms":20,"samples":17}}\n\n',
        b'event: readings\ndata: {"key":"van-2","doc":{"agent":"van-2","to_ms":5,"samples":1}}\n\n',
        b'event: readings\ndata: {"key":"van-1","doc":{"agent":"van-1","to_ms":30,"samples":1}}\n\n',
    ]


def test_readings_that_nobody_watches_are_not_gathered() -> None:
    feed = Feed()
    feed.hear([ReadingsCame(VAN, EpochMs(20), 10)])
    assert feed.lost == 0
