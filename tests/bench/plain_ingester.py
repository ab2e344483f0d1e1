"""What most people would write first: paho's on_message, a loop over the samples, executemany and a commit.

No ledger, no acknowledgement of its own, no group: the rival the fast lane is measured against. It prints how many rows
it has committed, four times a second.
"""

import json
import struct
import sys
import time
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

INSERT = {
    "postgresql": "INSERT INTO plain (at, agent, {names}) VALUES (to_timestamp(%s / 1000.0), %s, {places})",
    "sqlite": "INSERT INTO plain (at, agent, {names}) VALUES (?, ?, {places})",
}


class PlainIngester:
    """One connection to the broker and one to the database."""

    def __init__(self, url: str, channels: int) -> None:
        names = [f"c{k}" for k in range(channels)]
        self.rows = 0
        self.connection: Any
        if url.startswith("sqlite"):
            import sqlite3

            self.connection = sqlite3.connect(url.removeprefix("sqlite:///"), check_same_thread=False)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = FULL")
            mark, kind = "?", ("INTEGER", "REAL")
        else:
            import psycopg

            self.connection = psycopg.connect(url)
            mark, kind = "%s", ("timestamptz NOT NULL", "real")
        columns = ", ".join(f"{name} {kind[1]}" for name in names)
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS plain (at {kind[0]}, agent TEXT NOT NULL, {columns})")
        self.connection.execute("CREATE INDEX IF NOT EXISTS plain_by_time ON plain (agent, at)")
        self.connection.commit()
        words = {"names": ", ".join(names), "places": ", ".join([mark] * channels)}
        self.insert = INSERT["sqlite" if mark == "?" else "postgresql"].format(**words)

    def take(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        """Unpack a batch and insert its rows."""
        payload = message.payload
        body = 4 + int.from_bytes(payload[:4], "little")
        heading = json.loads(payload[4:body])
        samples, channels = heading["samples"], len(heading["channels"])
        columns = [struct.unpack_from(f"<{samples}q", payload, body)]
        for k in range(channels):
            columns.append(struct.unpack_from(f"<{samples}f", payload, body + 8 * samples + 4 * samples * k))
        sender = heading["sender"]
        cursor = self.connection.cursor()
        cursor.executemany(self.insert, [(at, sender, *values) for at, *values in zip(*columns, strict=True)])
        self.connection.commit()
        self.rows += samples


def _subscribe(client: Client, *_: Any) -> None:
    client.subscribe("ww/plain/+/up/telemetry", 1)


def main() -> None:
    """`python -m tests.bench.plain_ingester PORT URL CHANNELS`."""
    port, url, channels = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ingester = PlainIngester(url, channels)
    client = Client(CallbackAPIVersion.VERSION2, "plain", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = ingester.take
    client.on_connect = _subscribe
    client.connect("127.0.0.1", port)
    client.loop_start()
    while True:
        print(json.dumps({"at_s": time.monotonic(), "rows": ingester.rows}), flush=True)
        time.sleep(0.25)


if __name__ == "__main__":
    main()
