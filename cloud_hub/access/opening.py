"""Put the parts of access together for a hub: whom to believe, the journal, and the first admin key."""

import secrets
import sys
from collections.abc import Callable
from typing import Any

from prometheus_client.registry import CollectorRegistry

from cloud_hub.access.asked import KeyAsked
from cloud_hub.access.gate import Access
from cloud_hub.access.identity import Identity, new_key
from cloud_hub.access.journal import Journal
from cloud_hub.access.oidc import Provider
from cloud_hub.access.setting import AccessSetting
from cloud_hub.storage import HubStore

PURPOSE = "sessions"
"""What the secret of cookies is derived for."""


def provider_of(setting: AccessSetting) -> Provider | None:
    """The provider of the settings; None when there is none. Raises SettingsWrong when its secret is missing."""
    return Provider(setting.oidc) if setting.oidc.issuer else None


def open_access(
    setting: AccessSetting,
    provider: Provider | None,
    store: HubStore,
    secret: bytes,
    ask: Callable[[Any], Any],
    registry: CollectorRegistry,
) -> Access:
    """Everything the gate works with. `ask` puts an event before the core, `secret` signs cookies."""
    journal = Journal(ask, store, setting.record_days, secrets.token_hex(3))
    return Access(Identity(setting, store, secret, provider), journal, store, registry)


def make_first_key(setting: AccessSetting, ask: Callable[[Any], Any]) -> None:
    """At a hub's first start: make the key of its first admin, and show it, once, to whoever starts it.

    Written to standard error as a sentence for people, and kept nowhere in clear. A hub that is open on the loopback
    needs none.
    """
    if setting.open_on_loopback:
        return
    key, record = new_key(kind="key", name="the first admin", role="admin")

    def show(done: Any) -> None:
        answer = done.result()
        if answer is not None and answer.is_done:
            sys.stderr.write(
                f"The first admin key, shown this once and kept nowhere: {key}\n"
                "Put it into WAYWARDEN_KEY for `waywarden keys`, or sign in with it at /sign-in.\n"
            )
            sys.stderr.flush()

    ask(KeyAsked(record, "the hub's first start", is_first=True)).add_done_callback(show)
