"""What comes in at the agent's doors, settings and broker: whatever it is, it is taken or refused by name."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from edge_agent.__main__ import main
from edge_agent.door import Door
from edge_agent.identity import DeadLetter
from edge_agent.settings import agent_settings, zone_of
from shared import topics, wire
from shared.messages import Ack, Numbered, Presence, WindowTold
from shared.mqtt import Heard, LinkDown, LinkUp
from shared.quantities import EpochMs, TimeWindow
from shared.settings import SettingsWrong
from shared.signing import Signer, Verifier
from shared.work import AgentId, StopId

VAN = AgentId("van-1")
SIGNER = Signer(SigningKey.generate())
COMMANDS = topics.down("town", VAN, "commands")


def door() -> tuple[Door, list[Any]]:
    posted: list[Any] = []
    return Door("town", VAN, Verifier(SIGNER.public_hex()), posted.append), posted


def signed(topic: str, payload: bytes) -> Heard:
    return Heard(topic, payload, SIGNER.sign(topic, payload))


def told(stream: str = "commands") -> bytes:
    window = WindowTold(StopId("s"), TimeWindow(EpochMs(0), EpochMs(1)))
    return wire.encode(Numbered(topics.HUB, "b", stream, 1, EpochMs(0), 1, window))


def test_a_signed_command_reaches_the_core() -> None:
    at_door, posted = door()
    at_door.hear(signed(COMMANDS, told()))
    assert isinstance(posted[0], Numbered)


def test_a_signature_for_another_vans_topic_is_worth_nothing_here() -> None:
    at_door, posted = door()
    other = signed(topics.down("town", AgentId("van-2"), "commands"), told())
    at_door.hear(Heard(COMMANDS, other.payload, other.signature))
    assert posted == []
    assert at_door.refused == {"SignatureWrong": 1}


def test_a_signed_command_nobody_understands_is_a_dead_letter() -> None:
    at_door, posted = door()
    future = msgspec.json.encode(
        {"sender": "hub", "boot": "b", "stream": "commands", "seq": 9, "message": {"type": "x"}}
    )
    at_door.hear(signed(COMMANDS, future))
    assert isinstance(posted[0], DeadLetter)
    assert posted[0].heading.seq == 9


def test_acks_presence_and_the_links_own_news_pass() -> None:
    at_door, posted = door()
    at_door.hear(Heard(topics.down("town", VAN, "acks"), wire.encode(Ack(VAN, "b", "events", 1)), None))
    at_door.hear(Heard(topics.hub_presence("town"), wire.encode(Presence(topics.HUB, True, "l")), None))
    at_door.hear(LinkUp())
    at_door.hear(LinkDown("cut"))
    assert [type(event).__name__ for event in posted] == ["Ack", "Presence", "LinkUp", "LinkDown"]


TOPICS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            COMMANDS,
            topics.down("town", VAN, "acks"),
            topics.hub_presence("town"),
            topics.up("town", VAN, "events"),
            topics.down("elsewhere", VAN, "commands"),
            topics.down("town", AgentId("van-2"), "acks"),
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    topic=TOPICS, payload=st.binary(max_size=300), signature=st.none() | st.text(max_size=140), is_ours=st.booleans()
)
def test_garbage_from_the_broker_is_always_refused_by_name(
    topic: str, payload: bytes, signature: str | None, is_ours: bool
) -> None:
    at_door, posted = door()
    at_door.hear(signed(topic, payload) if is_ours else Heard(topic, payload, signature))
    assert len(posted) + sum(at_door.refused.values()) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode()),
        st.dictionaries(
            st.sampled_from(["agent", "broker", "hub_public_key", "store", "page_port", "gnss", "time_zone", "x"]),
            st.text(max_size=30) | st.integers(-5, 70_000),
            max_size=8,
        ).map(lambda table: "\n".join(f"{k} = {msgspec.json.encode(v).decode()}" for k, v in table.items()).encode()),
    )
)
def test_settings_are_read_or_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "van.toml"
    path.write_bytes(content)
    with contextlib.suppress(SettingsWrong):
        assert agent_settings(path).agent


def test_missing_settings_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--settings", str(tmp_path / "none.toml")]) == 78
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "hours"), [("+02:00", 2.0), ("-03:30", -3.5), ("UTC", 0.0)])
def test_offsets_are_time_zones(text: str, hours: float) -> None:
    offset = zone_of(text).utcoffset(None)
    assert offset is not None
    assert offset.total_seconds() == hours * 3600
