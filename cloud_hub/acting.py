"""Be the one hub that acts for a region, and end the process the moment that is no longer sure.

A lease in the store says who acts. It is renewed far more often than it runs out, and a process that could not renew it
ends itself before another may take it over: a hub behind a half-open link cannot know that it has been replaced, but it
can know that it has not been heard. The fence in every commit holds even where this clock does not (a machine that
slept): what another hub has taken over cannot be written any more.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence

from cloud_hub.storage import Fenced, HubStore, StoreAway, TelemetryStore, open_stores
from shared.logs import log, told
from shared.steps import Row, Saved, Store

RENEW_S = 0.7
ENDS_AFTER_S = 2.2
"""Without a renewal for so long the process ends. Another may act from 3 s on (the store's LEASE_S): between the two
lie the step under way and a machine that is slow to end a process.
"""

TRY_S = 0.25
"""How often a standby tries to act."""

AWAY_LEAST_S, AWAY_MOST_S = 0.25, 5.0
"""How long to wait for a database that is away before asking again: doubled each time, drawn from its upper half."""

TEMPORARY = 75
"""EX_TEMPFAIL of sysexits.h: start it again, nothing is wrong with the program."""


def end_process(why: str) -> None:
    """Leave no time for another word: neither a commit nor a message of this process is to be trusted any more."""
    log("hub_ends", why=why, then="started again, it stands by or acts anew")
    os._exit(TEMPORARY)


def own_name() -> str:
    """Who holds the lease: machine and process, for people to find it."""
    return f"{socket.gethostname()}/{os.getpid()}"


def opened_stores(url: str, stop: threading.Event) -> tuple[HubStore, TelemetryStore] | None:
    """The stores of a URL, waited for as long as the database is away; None when told to stop.

    Raises StoreUnknown or StoreUnreadable for what waiting does not mend: a wrong URL or password, a newer release.
    """
    patience_s = AWAY_LEAST_S
    is_told = False
    while not stop.is_set():
        try:
            return open_stores(url, patience_s=0.0)
        except StoreAway as away:
            if not is_told:
                log("database_away", why=away, then="asked again until it is there")
                is_told = True
        stop.wait(patience_s * random.uniform(0.5, 1.0))
        patience_s = min(2 * patience_s, AWAY_MOST_S)
    return None


class CommitFailed(RuntimeError):
    """The store did not take a commit: the process ends and wakes from what is kept."""


class Lease:
    """This process's right to act for its region, for as long as it can prove it."""

    def __init__(
        self,
        store: HubStore,
        region: str,
        holder: str,
        *,
        runs_out: bool,
        end: Callable[[str], None] = end_process,
    ) -> None:
        """`runs_out` when another machine may take the right over: not where a lock on a file is the right, which goes
        with the process. `end` is called at most once, from a thread of the lease, when the right is lost or in doubt.
        """
        self._store = store
        self._region = region
        self._holder = holder
        self._runs_out = runs_out
        self._end = end
        self._renewed_at_s = 0.0
        self._is_over = threading.Event()

    def take(self) -> bool:
        """Try once to become the hub that acts; then it is renewed until `stop`. Raises StoreAway."""
        asked_at_s = time.monotonic()
        if not self._store.act(self._region, self._holder):
            return False
        # From the moment of asking: the store may have counted from then on.
        self._renewed_at_s = asked_at_s
        for work in (self._renew, self._watch) if self._runs_out else ():
            threading.Thread(target=work, name="lease", daemon=True).start()
        return True

    def stop(self) -> None:
        """Renew no more."""
        self._is_over.set()

    @property
    def age_s(self) -> float:
        """How long ago the right to act was last confirmed, in seconds; 0 for one that does not run out."""
        return time.monotonic() - self._renewed_at_s if self._runs_out else 0.0

    def lost(self, why: str) -> None:
        """End the process, once."""
        if not self._is_over.is_set():
            self._is_over.set()
            self._end(why)

    def _renew(self) -> None:
        is_told = False
        while not self._is_over.wait(RENEW_S):
            asked_at_s = time.monotonic()
            try:
                is_ours = self._store.renew()
            except Exception as away:  # noqa: BLE001 - whatever is wrong with the store, the watch decides.
                if not is_told:
                    log("lease_not_renewed", region=self._region, why=told(away))
                    is_told = True
                continue
            if not is_ours:
                self.lost(f"another hub acts for region '{self._region}' now")
                return
            self._renewed_at_s = asked_at_s
            is_told = False

    def _watch(self) -> None:
        """A thread of its own: behind a half-open link the renewal neither succeeds nor fails."""
        while not self._is_over.wait(max(0.01, ENDS_AFTER_S - self.age_s)):
            if self.age_s >= ENDS_AFTER_S:
                self.lost(f"the right to act for region '{self._region}' could not be renewed for {self.age_s:.1f} s")


class WatchedStore:
    """The core's store: says how long commits take, and names what went wrong with one."""

    def __init__(self, store: Store, took: Callable[[float], None]) -> None:
        """`took` hears how many seconds each commit took."""
        self._store = store
        self._took = took

    def saved(self) -> Saved:
        """Everything the store holds."""
        return self._store.saved()

    def commit(self, rows: Sequence[Row]) -> None:
        """Commit. Raises Fenced when another hub acts, CommitFailed when the store did not take it."""
        began_s = time.perf_counter()
        try:
            self._store.commit(rows)
        except Fenced:
            raise
        except Exception as wrong:
            raise CommitFailed(f"{len(rows)} rows were not taken: {told(wrong)}") from wrong
        self._took(time.perf_counter() - began_s)
