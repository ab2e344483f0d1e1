"""Numbering, repeating until acknowledged, and taking each message once."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.messages import Ack, Arrived, Numbered
from shared.quantities import EpochMs
from shared.steps import Row
from shared.streams import IN_FLIGHT, MOST_LIVES, REPEAT_AFTER_MS, Receiver, Sender, Take
from shared.work import AgentId, StopId

HUB, VAN = AgentId("hub"), AgentId("van-1")


def numbered(seq: int, boot: str = "a1") -> Numbered:
    return Numbered(VAN, boot, "events", seq, EpochMs(0), 0, Arrived(StopId(f"s{seq}")))


def written(seq: int) -> bytes:
    return b"message %d" % seq


def sender(rows: dict[str, dict[str, bytes]] | None = None) -> Sender:
    rows = rows or {}
    return Sender(HUB, "a1", "events", rows.get("outbox", {}), rows.get("counters", {}))


def kept(disk: dict[str, dict[str, bytes]], rows: list[Row]) -> None:
    for row in rows:
        room = disk.setdefault(row.room, {})
        if row.value is None:
            room.pop(row.key, None)
        else:
            room[row.key] = row.value


def test_what_is_said_is_due_at_once_and_then_waits() -> None:
    outbox = sender()
    outbox.say(written)
    assert outbox.due(0) == [b"message 1"]
    assert outbox.due(REPEAT_AFTER_MS - 1) == []


def test_what_is_not_acknowledged_is_repeated() -> None:
    outbox = sender()
    outbox.say(written)
    outbox.due(0)
    again_at = outbox.due_at(0)
    assert again_at is not None
    assert outbox.due(again_at) == [b"message 1"]


def test_an_ack_frees_all_messages_up_to_it() -> None:
    outbox = sender()
    for _ in range(3):
        outbox.say(written)
    outbox.acked(Ack(VAN, "a1", "events", 2))
    assert outbox.due(0) == [b"message 3"]


def test_an_ack_for_another_life_of_the_store_frees_nothing() -> None:
    outbox = sender()
    outbox.say(written)
    outbox.acked(Ack(VAN, "b2", "events", 1))
    assert outbox.backlog == 1


def test_no_more_than_a_window_is_on_its_way() -> None:
    outbox = sender()
    for _ in range(IN_FLIGHT + 10):
        outbox.say(written)
    assert len(outbox.due(0)) == IN_FLIGHT


def test_a_returning_receiver_is_told_everything_at_once() -> None:
    outbox = sender()
    outbox.say(written)
    outbox.due(0)
    outbox.repeat_all()
    assert outbox.due(1) == [b"message 1"]


def test_numbers_go_on_after_a_restart_with_an_empty_outbox() -> None:
    disk: dict[str, dict[str, bytes]] = {}
    first = sender()
    kept(disk, first.say(written))
    kept(disk, first.acked(Ack(VAN, "a1", "events", 1)))
    again = sender(disk)
    kept(disk, again.say(written))
    assert again.due(0) == [b"message 2"]


def test_a_message_said_twice_is_taken_once() -> None:
    receiver = Receiver({})
    assert receiver.take(numbered(1))[0] is Take.NEW
    assert receiver.take(numbered(1))[0] is Take.REPEAT


def test_a_message_ahead_of_its_turn_waits_for_its_repeat() -> None:
    receiver = Receiver({})
    assert receiver.take(numbered(2))[0] is Take.EARLY
    assert receiver.ack(VAN, "events") is None


def test_a_retired_life_is_not_believed_any_more() -> None:
    receiver = Receiver({})
    receiver.take(numbered(1, "a1"))
    receiver.take(numbered(1, "b2"))
    assert receiver.take(numbered(2, "a1"))[0] is Take.RETIRED
    assert receiver.lives(VAN, "events") == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["say", "deliver", "lose ack", "restart sender", "restart receiver"])), max_size=60
    )
)
def test_whatever_is_lost_or_restarted_each_message_is_taken_once_and_in_order(moves: list[tuple[str]]) -> None:
    sender_disk: dict[str, dict[str, bytes]] = {}
    receiver_disk: dict[str, dict[str, bytes]] = {}
    outbox, receiver, taken, said = sender(), Receiver({}), [], 0

    def deliver(ack_arrives: bool) -> None:
        for payload in outbox.due(0):
            verdict, rows = receiver.take(msgspec.json.decode(payload, type=Numbered))
            kept(receiver_disk, rows)
            if verdict is Take.NEW:
                taken.append(msgspec.json.decode(payload, type=Numbered).seq)
        ack = receiver.ack(VAN, "events")
        if ack_arrives and ack is not None:
            kept(sender_disk, outbox.acked(ack))
        outbox.repeat_all()

    for (move,) in moves:
        if move == "say":
            kept(sender_disk, outbox.say(lambda seq: msgspec.json.encode(numbered(seq))))
            said += 1
        elif move in ("deliver", "lose ack"):
            deliver(ack_arrives=move == "deliver")
        elif move == "restart sender":
            outbox = sender(sender_disk)
        else:
            receiver = Receiver(receiver_disk.get("taken", {}))
    deliver(ack_arrives=True)
    assert taken == list(range(1, said + 1))
    assert outbox.backlog == 0


@given(st.integers(1, 80), st.integers(0, 80), st.booleans())
def test_what_is_rewritten_waits_under_its_number_in_memory_and_on_disk(said: int, acked: int, was_sent: bool) -> None:
    disk: dict[str, dict[str, bytes]] = {}
    outbox = sender()
    for _ in range(said):
        kept(disk, outbox.say(written))
    if was_sent:
        outbox.due(0)
    kept(disk, outbox.acked(Ack(VAN, "a1", "events", acked)))
    kept(disk, outbox.rewrite(lambda payload: payload.replace(b"message", b"nothing")))
    outbox.repeat_all()
    woken = sender(disk)
    assert outbox.due(0) == woken.due(0) == [b"nothing %d" % seq for seq in range(acked + 1, said + 1)][:IN_FLIGHT]
    assert outbox.rewrite(lambda payload: payload) == []


def test_what_a_restored_receiver_lacks_is_counted_once_and_the_stream_goes_on() -> None:
    receiver = Receiver({})
    receiver.take(numbered(1))
    missing, rows = receiver.resume(VAN, "a1", "events", 5)
    assert missing == 3
    woken = Receiver({row.key: row.value for row in rows if row.value is not None})
    assert woken.resume(VAN, "a1", "events", 5) == (0, [])
    assert woken.take(numbered(5))[0] is Take.NEW


def test_a_sender_that_forgot_only_what_was_taken_leaves_no_gap() -> None:
    receiver = Receiver({})
    receiver.take(numbered(1))
    receiver.take(numbered(2))
    assert receiver.resume(VAN, "a1", "events", 3) == (0, [])
    assert receiver.resume(VAN, "a1", "events", 1) == (0, [])
    assert receiver.take(numbered(3))[0] is Take.NEW


def test_a_retired_life_cannot_move_the_mark() -> None:
    receiver = Receiver({})
    receiver.take(numbered(1, "a1"))
    receiver.take(numbered(1, "b2"))
    assert receiver.resume(VAN, "a1", "events", 50) == (0, [])
    assert receiver.take(numbered(2, "b2"))[0] is Take.NEW


def test_a_replay_under_a_retired_boot_is_refused_whatever_number_it_bears() -> None:
    receiver = Receiver({})
    receiver.take(numbered(1, "a1"))
    receiver.take(numbered(1, "b2"))
    assert [receiver.take(numbered(seq, "a1"), after=seq - 1)[0] for seq in (1, 2, 3)] == [Take.RETIRED] * 3


def test_a_receiver_with_a_new_store_does_not_wait_for_what_is_kept_no_more() -> None:
    receiver = Receiver({})
    assert receiver.take(numbered(57), after=0)[0] is Take.EARLY
    assert receiver.take(numbered(57), after=56)[0] is Take.NEW
    assert receiver.take(numbered(56), after=55)[0] is Take.REPEAT


def test_a_sender_tells_the_lowest_number_it_keeps() -> None:
    outbox = sender()
    assert outbox.unacked == 1
    outbox.say(written)
    outbox.say(written)
    assert outbox.unacked == 1
    outbox.acked(Ack(VAN, "a1", "events", 1))
    assert outbox.unacked == 2
    outbox.acked(Ack(VAN, "a1", "events", 2))
    assert outbox.unacked == 3


def test_an_ack_that_knows_less_than_another_takes_nothing_back() -> None:
    outbox = sender()
    for _ in range(5):
        outbox.say(written)
    outbox.acked(Ack(VAN, "a1", "events", 2, (4,)))
    outbox.acked(Ack(VAN, "a1", "events", 0, (5,)))
    assert outbox.due(0) == [b"message 3"]


def test_what_is_held_back_is_kept_numbered_and_not_due() -> None:
    outbox = sender()
    for _ in range(3):
        outbox.say(written)
    outbox.held_from = 2
    assert outbox.due(0) == [b"message 1"]
    outbox.acked(Ack(VAN, "a1", "events", 1))
    assert outbox.due_at(0) is None
    outbox.held_from = None
    assert outbox.due(0) == [b"message 2", b"message 3"]


def test_a_store_made_anew_time_and_again_is_followed_no_further_and_costs_no_more_room() -> None:
    receiver = Receiver({})
    taken = [receiver.take(numbered(1, f"boot-{life}"))[0] for life in range(3 * MOST_LIVES)]
    assert taken == [Take.NEW] * (MOST_LIVES + 1) + [Take.RETIRED] * (2 * MOST_LIVES - 1)
    assert receiver.lives(VAN, "events") == MOST_LIVES + 1
    assert receiver.take(numbered(2, f"boot-{MOST_LIVES}"))[0] is Take.NEW


def test_an_ack_of_a_hundred_thousand_numbers_is_taken_in_one_pass() -> None:
    outbox = sender()
    for _ in range(2_000):
        outbox.say(written)
    assert len(outbox.acked(Ack(VAN, "a1", "events", 0, tuple(range(3, 200_000))))) == 1_998
    assert outbox.unacked == 1
