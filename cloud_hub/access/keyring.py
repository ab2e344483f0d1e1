"""The core's book of keys: made, used and revoked, each change of a key on record without its secret."""

import msgspec

from cloud_hub.access.asked import AccessesOld, AccessesSeen, KeyAsked, KeyRevokeAsked, KeysUsed
from cloud_hub.access.keys import KeyRecord
from cloud_hub.chains import Chains, Hand
from cloud_hub.events import Answer
from cloud_hub.memory import Memory
from shared.steps import Now, Row


class Keyring:
    """Keys and sessions. Sessions come and go without a record of their own: who looked at what is kept elsewhere."""

    def __init__(self, memory: Memory, chains: Chains) -> None:
        self._memory = memory
        self._chains = chains

    def asked(self, event: KeyAsked, now: Now) -> Answer:
        """Keep a key."""
        record, keys = event.record, self._memory.keys
        if event.is_first and len(keys):
            return Answer(False, "a key was made before")
        if record.key_id in keys:
            return Answer(False, "this id is taken")
        self._drop_spent(record.made_ms)
        keys.put(record.key_id, record)
        if record.kind == "key":
            bounds = f", bound to {', '.join(record.depots)}" if record.depots is not None else ""
            self._decide("key_made", f"a key with the role {record.role}{bounds} was made", record, event.by, now)
        return Answer(True, named=(record.key_id,))

    def revoked(self, event: KeyRevokeAsked, now: Now) -> Answer:
        """End a key, or a session."""
        record = self._memory.keys.get(event.key_id)
        if record is None:
            return Answer(False, "no such key")
        if record.revoked_ms is not None:
            return Answer(True, named=(event.key_id,))
        sessions = [one for one in self._memory.keys.values() if one.parent == event.key_id]
        for session in sessions:
            self._memory.keys.drop(session.key_id)
        if record.kind == "session":
            self._memory.keys.drop(event.key_id)
        else:
            self._memory.keys.put(event.key_id, msgspec.structs.replace(record, revoked_ms=event.at_ms))
            self._decide("key_revoked", f"a key with the role {record.role} was revoked", record, event.by, now)
        return Answer(True, named=(event.key_id,))

    def used(self, event: KeysUsed, _: Now) -> None:
        """Keys were used."""
        for key_id, used_ms in event.used_ms.items():
            record = self._memory.keys.get(key_id)
            if record is not None and used_ms > (record.used_ms or 0):
                self._memory.keys.put(key_id, msgspec.structs.replace(record, used_ms=used_ms))

    def seen(self, event: AccessesSeen, _: Now) -> None:
        """Personal data was read."""
        for key, access in event.kept:
            self._memory.note("accesses", key, access)

    def old(self, event: AccessesOld, _: Now) -> None:
        """Accesses are forgotten."""
        self._memory.keep(Row("accesses", key, None) for key in event.keys)

    def _drop_spent(self, at_ms: int) -> None:
        """Sessions that are over are of no use to anybody."""
        for key_id, record in list(self._memory.keys.items()):
            if record.kind == "session" and record.why_dead(at_ms):
                self._memory.keys.drop(key_id)

    def _decide(self, kind: str, what: str, record: KeyRecord, by: str, now: Now) -> None:
        # The key's name may be a person's, and the record is for good: it knows the key by its id.
        self._chains.decide(
            now,
            kind,
            f"{what[0].upper()}{what[1:]}: {record.key_id}.",
            f"{self._chains.person(by)} asked",
            about=(f"key:{record.key_id}",),
            verdict="a person's word",
            hand=Hand(by, record.name),
        )
