"""Commit batches of readings to PostgreSQL: each message once, all new ones copied together.

A commit is one transaction: a ledger row for each message, in order, so that two workers never wait for each other in a
circle; then one binary COPY for each table, of the messages that were new; then a notification of what came. Any number
of processes may commit at once. Names are numbered on first sight, in transactions of their own, and remembered.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from cloud_hub.storage import LedgerRow, Segment, StoreAway, TelemetryLetter, packing, telemetry_tables
from cloud_hub.storage.packing import COPY_END, COPY_HEAD, POSITIONS, SUMMED, Block, Rows
from cloud_hub.storage.telemetry_tables import LEDGER_LOCK, Connection, Features, Layout, plain_text, say
from shared.logs import log, told
from shared.quantities import EpochMs
from shared.work import AgentId

CHANNEL = "waywarden_readings"
"""What is notified and listened to."""

MOST_NOTICE_BYTES = 7_900
"""PostgreSQL takes notifications of fewer than 8,000 bytes."""

ROWS_PER_PIECE = 2_500
"""Some 200 KB: what a socket holds, so that packing and the server's work go on at once; and it stays in the cache."""

DAY_MS = 86_400_000
MOST_REMEMBERED = 100_000
MOST_REFUSED = 1_000
"""Layouts there is no room for that are remembered; of others it is asked again."""

_TAKE = (
    "INSERT INTO telemetry_ledger (life, seq, samples, thinned) "
    "SELECT said.life, said.seq, said.samples, said.thinned "
    "FROM unnest(%s::int4[], %s::int8[], %s::int4[], %s::int8[]) AS said (life, seq, samples, thinned) "
    "JOIN telemetry_lives ON telemetry_lives.id = said.life WHERE said.seq > telemetry_lives.upto "
    "ORDER BY said.life, said.seq ON CONFLICT DO NOTHING RETURNING life, seq"
)


class _Life(NamedTuple):
    """The numbers of an agent and of one life of its store."""

    life: int
    agent: int


class Said(Protocol):
    """Whatever stands in one life of a sender."""

    @property
    def sender(self) -> AgentId:
        """Whose it is."""
        ...

    @property
    def boot(self) -> str:
        """Of which life of its store."""
        ...


T = TypeVar("T")


class Writer:
    """One connection that commits, one commit at a time."""

    def __init__(self, connect: Callable[[], Connection], features: Features) -> None:
        """`connect` opens a connection in autocommit mode, or raises StoreAway."""
        self._connect = connect
        self._features = features
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._lives: dict[tuple[str, str], _Life] = {}
        self._channels: dict[str, int] = {}
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._has_no_room_for: set[tuple[str, ...]] = set()
        self._places: set[tuple[int, int]] = set()
        self._days: dict[int, set[int]] = {}
        self._buffers: dict[str, Rows] = {}

    def commit(self, segments: Sequence[Segment]) -> list[bool]:
        """Keep each segment not known yet, with its ledger row, all in one transaction; which were new. Several
        processes may commit at once. One numbered 0 comes from a backup: it has no ledger row and is always new.

        Raises StoreAway when the database is out of reach: nothing is known then of what was kept, and saying it again
        is right.
        """
        return self._do(lambda connection: self._commit(connection, segments))

    def bury(self, letters: Sequence[TelemetryLetter]) -> None:
        """Keep what cannot be read, with a ledger row of no samples each. Raises StoreAway."""
        self._do(lambda connection: self._bury(connection, letters))

    def restore_ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Note messages as taken whose readings are not kept any more. Raises StoreAway."""
        self._do(lambda connection: self._restore(connection, rows))

    def do(self, work: Callable[[Connection], T]) -> T:
        """Something else that writes, between two commits. Raises StoreAway."""
        return self._do(work)

    def _do(self, work: Callable[[Connection], T]) -> T:
        with self._lock:
            for _ in range(2):
                connection = self._writing()
                try:
                    return work(connection)
                except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as broken:
                    # A connection of before a restart of the database is found out here: once more, on a new one. So is
                    # TimescaleDB's "tuple concurrently updated", where two make or drop the same chunk at once.
                    away = broken
                    self._let_go()
        raise StoreAway(f"readings were not committed: {told(away)}") from away

    def _writing(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _commit(self, connection: Connection, segments: Sequence[Segment]) -> list[bool]:
        if len(self._channels) > MOST_REMEMBERED:
            self._channels.clear()
        lives = self._know_lives(connection, segments)
        numbers = {sender: life.agent for (sender, _), life in lives.items()}
        keys = [(lives[one.sender, one.boot].life, one.seq) for one in segments]
        first = dict(reversed([(key, k) for k, key in enumerate(keys)]))  # Of one said twice, the first.
        once = sorted(k for key, k in first.items() if key[1])
        restored = [k for k, one in enumerate(segments) if not one.seq]
        found = packing.blocks([segments[k] for k in (*once, *restored)], numbers)
        tables = [self._know_table(connection, block) for block in found]
        with connection.transaction():
            new = self._take(connection, [(keys[k], segments[k]) for k in once])
            if len(new) < len(once):
                fresh = [segments[k] for k in once if keys[k] in new]
                found = packing.blocks([*fresh, *(segments[k] for k in restored)], numbers)
                tables = [self._know_table(connection, block) for block in found]
            for layout, blocks in _by_layout(tables, found):
                self._copy(connection, layout, blocks)
                _unblur(connection, layout, blocks)
            is_new = [not key[1] or (first[key] == k and key in new) for k, key in enumerate(keys)]
            _notify(connection, [one for one, is_one in zip(segments, is_new, strict=True) if is_one and one.samples])
        return is_new

    def _take(self, connection: Connection, said: list[tuple[tuple[int, int], Segment]]) -> set[tuple[int, int]]:
        """Note these messages as taken; those that were not yet."""
        if not said:
            return set()
        # Against whoever folds up the ledger (`settle`): what is folded is seen by the statement after this one.
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (LEDGER_LOCK,))
        columns = (
            [life for (life, _), _ in said],
            [seq for (_, seq), _ in said],
            [one.samples for _, one in said],
            [one.thinned for _, one in said],
        )
        return set(connection.execute(_TAKE, [f"{{{','.join(map(str, column))}}}" for column in columns]).fetchall())

    def _bury(self, connection: Connection, letters: Sequence[TelemetryLetter]) -> None:
        lives = self._know_lives(connection, letters)
        with connection.transaction():
            places = {(lives[one.sender, one.boot].life, one.seq): one for one in reversed(letters)}
            blank = Segment(AgentId(""), "", 0, EpochMs(0), EpochMs(0), 0, 0, b"")
            new = self._take(connection, [(place, blank) for place in sorted(places)])
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO telemetry_letters (life, seq, at_ms, why, payload) VALUES (%s, %s, %s, %s, %s)",
                    [
                        (*key, places[key].at_ms, plain_text(places[key].why), places[key].payload)
                        for key in sorted(new)
                    ],
                )

    def _restore(self, connection: Connection, rows: Sequence[LedgerRow]) -> None:
        lives = self._know_lives(connection, rows)
        with connection.transaction():
            single = {(lives[one.sender, one.boot].life, one.seq): one for one in rows if one.messages == 1}
            blank = Segment(AgentId(""), "", 0, EpochMs(0), EpochMs(0), 0, 0, b"")
            self._take(
                connection,
                [(key, blank._replace(samples=single[key].samples, thinned=single[key].thinned))
                 for key in sorted(single)],
            )  # fmt: skip
            for one in rows:
                if one.messages > 1:
                    _restore_run(connection, lives[one.sender, one.boot].life, one)

    def _know_lives(self, connection: Connection, segments: Sequence[Said]) -> dict[tuple[str, str], _Life]:
        """The numbers of every agent and life these segments name; given out on first sight."""
        wanted = {(one.sender, one.boot) for one in segments}
        if len(self._lives) > MOST_REMEMBERED:
            self._lives.clear()
        missing = sorted(wanted - self._lives.keys())
        if missing:
            names, boots = [plain_text(sender) for sender, _ in missing], [plain_text(boot) for _, boot in missing]
            connection.execute(
                "INSERT INTO telemetry_agents (name) SELECT DISTINCT name FROM unnest(%s::text[]) AS said (name) "
                "ORDER BY name ON CONFLICT DO NOTHING",
                (names,),
            )
            connection.execute(
                "INSERT INTO telemetry_lives (agent, boot) SELECT DISTINCT a.id, said.boot "
                "FROM unnest(%s::text[], %s::text[]) AS said (name, boot) JOIN telemetry_agents a USING (name) "
                "ORDER BY 1, 2 ON CONFLICT DO NOTHING",
                (names, boots),
            )
            rows = connection.execute(
                "SELECT said.place, l.id, a.id FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY "
                "AS said (name, boot, place) JOIN telemetry_agents a USING (name) "
                "JOIN telemetry_lives l ON l.agent = a.id AND l.boot = said.boot", (names, boots),
            )  # fmt: skip
            self._lives.update({missing[place - 1]: _Life(life, agent) for place, life, agent in rows})
        return {one: self._lives[one] for one in wanted}

    def _know_table(self, connection: Connection, block: Block) -> Layout:
        """The table of a block's rows, made when it is new, with its days and who is to be looked for in it."""
        layout = self._know_layout(connection, block)
        if not layout.is_hyper:
            self._know_days(connection, layout, block)
        places = {(int(agent), layout.number) for agent in np.unique(block.agents)} - self._places
        if places:
            connection.execute(
                "INSERT INTO telemetry_places (agent, layout) SELECT * FROM unnest(%s::int4[], %s::int4[]) "
                "ORDER BY 1, 2 ON CONFLICT DO NOTHING",
                ([agent for agent, _ in sorted(places)], [number for _, number in sorted(places)]),
            )
            self._places |= places
        return layout

    def _know_layout(self, connection: Connection, block: Block) -> Layout:
        channels = tuple(plain_text(name) for name in block.channels)
        if channels not in self._layouts and channels not in self._has_no_room_for:
            may_make = telemetry_tables.may_make_another(connection, np.unique(block.agents).tolist())
            made = telemetry_tables.layout_for(connection, channels, self._features, may_make)
            if made is not None:
                self._layouts[channels] = made
            elif may_make and len(self._has_no_room_for) < MOST_REFUSED:
                log("telemetry_layouts_full", channels=len(channels), then="readings go into the narrow table")
                self._has_no_room_for.add(channels)
        if channels in self._layouts:
            return self._layouts[channels]
        if () not in self._layouts:
            narrow = telemetry_tables.layout_for(connection, (), self._features)
            assert narrow is not None, "made when the store was opened"
            self._layouts[()] = narrow
        self._know_channels(connection, channels)
        return self._layouts[()]

    def _know_channels(self, connection: Connection, channels: Sequence[str]) -> None:
        missing = sorted(set(channels) - self._channels.keys())
        if missing:
            connection.execute(
                "INSERT INTO telemetry_channels (name) SELECT name FROM unnest(%s::text[]) AS said (name) "
                "ORDER BY name ON CONFLICT DO NOTHING", (missing,),
            )  # fmt: skip
            rows = connection.execute("SELECT name, id FROM telemetry_channels WHERE name = ANY(%s)", (missing,))
            self._channels.update(dict(rows.fetchall()))

    def _know_days(self, connection: Connection, layout: Layout, block: Block) -> None:
        first, last = int(block.at_ms.min()) // DAY_MS, int(block.at_ms.max()) // DAY_MS
        known = self._days.setdefault(layout.number, set())
        if last - first <= 1 and {first, last} <= known:
            return
        days = set(np.unique(block.at_ms // DAY_MS).tolist())
        if not days <= known:
            known |= telemetry_tables.make_days(connection, layout, days)
            known |= days  # Those without a partition lie in the default one: not looked for again.

    # Copying.

    def _copy(self, connection: Connection, layout: Layout, blocks: Sequence[Block]) -> None:
        rows = self._wide(layout, blocks) if layout.number else self._narrow(blocks)
        columns = layout.columns if layout.number else ("channel", "value")
        _copy_in(connection, layout.table, ("at", "agent", *columns), rows)
        if layout.has_views or not layout.summed:
            return
        sums = self._wide_sums(layout, blocks) if layout.number else self._narrow_sums(blocks)
        names = ["begins", "agent", *([] if layout.number else ["channel"])]
        names += [f"{column}_{kind}" for _, column in layout.summed for kind, _ in SUMMED]
        _copy_in(connection, layout.by_minute, names, sums)

    def _wide(self, layout: Layout, blocks: Sequence[Block]) -> Iterator[memoryview]:
        fields = [("at", ">i8"), ("agent", ">i4")]
        fields += [(str(k), packing.value_type(channel)) for k, channel in enumerate(layout.channels)]
        buffer = self._buffer(layout.table, fields)
        for block in packing.in_pieces(blocks, ROWS_PER_PIECE):
            rows = buffer.take(block.rows)
            packing.fill_wide(rows, block)
            yield _bytes(rows)

    def _narrow(self, blocks: Sequence[Block]) -> Iterator[memoryview]:
        fields = [("at", ">i8"), ("agent", ">i4"), ("channel", ">i4"), ("value", ">f8")]
        buffer = self._buffer("readings", fields)
        for block in packing.in_pieces(blocks, ROWS_PER_PIECE):
            rows = buffer.take(block.rows * len(block.channels))
            packing.fill_narrow(rows, block, self._numbers(block))
            # NaN is a sample that lacks the channel: a wide row has to say so, a narrow one need not be.
            lacking = np.isnan(rows["value"])
            yield _bytes(rows[~lacking] if lacking.any() else rows)

    def _wide_sums(self, layout: Layout, blocks: Sequence[Block]) -> Iterator[memoryview]:
        fields = [("at", ">i8"), ("agent", ">i4")]
        fields += [(f"{place}:{kind}", type_) for place, _ in layout.summed for kind, type_ in SUMMED]
        buffer = self._buffer(layout.by_minute, fields)
        for block in blocks:
            found = packing.sums(block)
            rows = buffer.take(len(found.at_ms))
            packing.fill_sums(rows, found)
            yield _bytes(rows)

    def _narrow_sums(self, blocks: Sequence[Block]) -> Iterator[memoryview]:
        fields = [("at", ">i8"), ("agent", ">i4"), ("channel", ">i4")]
        fields += [(kind, type_.replace("f4", "f8")) for kind, type_ in SUMMED]
        buffer = self._buffer("readings_1min", fields)
        for block in blocks:
            found = packing.sums(block)
            rows = buffer.take(len(found.at_ms) * len(found.places))
            packing.fill_narrow_sums(rows, found, self._numbers(block))
            yield _bytes(rows[rows["n"] > 0])

    def _numbers(self, block: Block) -> list[int]:
        return [self._channels[plain_text(name)] for name in block.channels]

    def _buffer(self, table: str, fields: list[tuple[str, str]]) -> Rows:
        if table not in self._buffers:
            self._buffers[table] = Rows(fields)
        return self._buffers[table]

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._let_go()


def _restore_run(connection: Connection, life: int, run: LedgerRow) -> None:
    """A run of messages from the first, as another ledger had folded it."""
    assert run.seq == run.messages, "only a run from the first is ever folded"
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))
    connection.execute("DELETE FROM telemetry_ledger WHERE life = %s AND seq <= %s", (life, run.seq))
    connection.execute(
        "UPDATE telemetry_lives SET upto = %s, messages = %s, samples = %s, thinned = %s WHERE id = %s AND upto < %s",
        (run.seq, run.messages, run.samples, run.thinned, life, run.seq),
    )


def _bytes(rows: npt.NDArray[Any]) -> memoryview:
    return rows.view(np.uint8).data


def _copy_in(connection: Connection, table: str, columns: Sequence[str], pieces: Iterable[memoryview]) -> None:
    """One piece is packed while the server works on the one before."""
    statement = say(
        "COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)",
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(COPY_HEAD)
        for piece in pieces:
            copy.write(piece)
        copy.write(COPY_END)


def _unblur(connection: Connection, layout: Layout, blocks: Sequence[Block]) -> None:
    """Positions that come later than theirs were coarsened are to be found once more. Whoever coarsens goes on by the
    hour and holds the mark meanwhile: with a day to spare, neither overlooks the other.
    """
    if layout.number and not POSITIONS.keys().isdisjoint(layout.channels):
        first_s = min(int(block.at_ms.min()) for block in blocks) / 1000
        connection.execute(
            "UPDATE telemetry_layouts SET blurred_to = LEAST(blurred_to, to_timestamp(%(first)s::float8)) "
            "WHERE id = %(id)s AND blurred_to > to_timestamp(%(first)s::float8) - INTERVAL '1 day'",
            {"first": first_s, "id": layout.number},
        )


def _by_layout(tables: Sequence[Layout], blocks: Sequence[Block]) -> Iterator[tuple[Layout, list[Block]]]:
    together: dict[Layout, list[Block]] = {}
    for layout, block in zip(tables, blocks, strict=True):
        together.setdefault(layout, []).append(block)
    yield from sorted(together.items())


def _notify(connection: Connection, segments: Sequence[Segment]) -> None:
    """Say what came, in the transaction that brings it: nobody hears of what was not committed."""
    came: dict[str, tuple[int, int]] = {}
    for one in segments:
        to_ms, samples = came.get(one.sender, (0, 0))
        came[one.sender] = (max(to_ms, one.to_ms), samples + one.samples)
    said: list[str] = []
    waiting: list[str] = []
    room = MOST_NOTICE_BYTES
    for agent, (to_ms, samples) in came.items():
        entry = msgspec.json.encode((plain_text(agent), to_ms, samples))
        room -= len(entry) + 1
        if room < 0:
            said.append(f"[{','.join(waiting)}]")
            waiting, room = [], MOST_NOTICE_BYTES - len(entry) - 1
        waiting.append(entry.decode())
    if waiting:
        said.append(f"[{','.join(waiting)}]")
        connection.execute("SELECT pg_notify(%s, said) FROM unnest(%s::text[]) AS said", (CHANNEL, said))
