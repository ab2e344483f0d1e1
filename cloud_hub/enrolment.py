"""What this hub tells a machine that becomes its agent, and whether an agent is still believed."""

import sqlite3
import threading
import time

from cloud_hub.authority import Authority, AuthorityUnusable
from cloud_hub.settings import HubSettings, authority_folder
from shared.logs import log

LOOK_S = 0.5
"""How long a revocation may go unnoticed at the hub's own door; the broker has ended the session long before."""


class Enrolment:
    """The hub's side of enrolment. The authority is made when somebody first asks for it: a demo needs none."""

    def __init__(self, settings: HubSettings, hub_public_key: str) -> None:
        self.region = settings.region
        self.agents_broker = settings.authority.broker
        """The broker as agents reach it; "" when the settings do not say."""
        self.hub_public_key = hub_public_key
        self._folder = authority_folder(settings)
        self._lock = threading.Lock()
        self._authority: Authority | None = None
        self._revoked: frozenset[str] = frozenset()
        self._looked_s = -LOOK_S
        self._seen: tuple[int, int] | None = None

    def authority(self, may_found: bool = False) -> Authority:
        """The authority of the settings' folder, made only for who may. Raises AuthorityUnusable."""
        with self._lock:
            if self._authority is None:
                if not may_found and not (self._folder / "ca.key").exists():
                    raise AuthorityUnusable("nobody was ever invited to this hub: `waywarden enrol AGENT` does it")
                self._authority = Authority(self._folder)
            return self._authority

    def is_revoked(self, agent: str) -> bool:
        """Whether this agent was enrolled once and is not believed any more. Cheap enough for every message."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        return agent in self._revoked

    def _look(self) -> None:
        try:
            stat = (self._folder / "register.sqlite").stat()
        except OSError:
            return
        if (stat.st_mtime_ns, stat.st_size) == self._seen:
            return
        try:
            self._revoked = self.authority().revoked_agents()
        except (AuthorityUnusable, sqlite3.Error) as wrong:
            # Of what is known nothing is forgotten; whoever was revoked lately is out at the broker.
            log("revocations_unread", because=str(wrong)[:200], then="looked at again when the register changes")
        self._seen = (stat.st_mtime_ns, stat.st_size)
