"""What a link proves itself by, and whom it believes: PEM files read anew for every connection.

A certificate that was renewed is used at the next connection, without a restart. Dates are judged by OpenSSL against
the machine's clock, so a machine that does not know the time yet (no battery clock, no GNSS fix) must not judge them:
it still asks for the right authority and the right name.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h; Python's ssl has no name for it."""


class TlsUnusable(ValueError):
    """A certificate or key file is missing, unreadable, or they do not belong together."""


def known() -> bool:
    """For a machine whose clock is right."""
    return True


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: `ca` holds the authorities that are believed, `certificate` and `key` are our own.

    `is_time_known` says whether the machine's clock is to be trusted with certificates' dates.
    """

    ca: str
    certificate: str
    key: str
    is_time_known: Callable[[], bool] = known

    def context(self) -> ssl.SSLContext:
        """A client's context; `refresh` it before each connection. Raises TlsUnusable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A name in the subject is an agent's; only names that were granted as such are a server's (RFC 6125, 6.4.4).
        context.hostname_checks_common_name = False
        self.refresh(context)
        return context

    def refresh(self, context: ssl.SSLContext) -> None:
        """Read the files once more, and judge dates or not as the clock stands now. Raises TlsUnusable."""
        context.verify_flags = ssl.VerifyFlags(
            context.verify_flags & ~_NO_CHECK_TIME if self.is_time_known() else context.verify_flags | _NO_CHECK_TIME
        )
        for what, path in (("tls_ca", self.ca), ("tls_certificate", self.certificate), ("tls_key", self.key)):
            if not os.access(path, os.R_OK):
                why = "may not be read by this user" if os.path.exists(path) else "does not exist"
                raise TlsUnusable(f"{what} {path} {why}; enrol this machine (docs/broker.md) or give the right path")
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, OSError) as wrong:
            raise TlsUnusable(f"tls_ca {self.ca} holds no certificate in PEM form: {_words(wrong)}") from None
        try:
            # No password is ever asked for: a process has no terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except (ssl.SSLError, OSError) as wrong:
            raise TlsUnusable(
                f"tls_certificate {self.certificate} and tls_key {self.key} cannot be used: {_words(wrong)}; expected "
                "a certificate and its own key, both PEM, the key without a password"
            ) from None


def tls_from(ca: str, certificate: str, key: str, is_time_known: Callable[[], bool] = known) -> Tls | None:
    """What the settings say of TLS: None when they say nothing. Raises TlsUnusable when they say only a part."""
    if not (ca or certificate or key):
        return None
    if not (ca and certificate and key):
        said = ", ".join(
            f"{name} = '{value}'" for name, value in (("ca", ca), ("certificate", certificate), ("key", key))
        )
        raise TlsUnusable(f"TLS is set in part: {said}; expected all three or none")
    return Tls(ca, certificate, key, is_time_known)


def check_served(certificate: str, key: str) -> None:
    """Whether a server could serve with these PEM files; nothing when neither is named. Raises TlsUnusable."""
    if not (certificate or key):
        return
    for path in (certificate, key):
        if not os.access(path, os.R_OK):
            raise TlsUnusable(f"{path or 'the other one'} of [http_tls] cannot be read; `waywarden certify` makes it")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as wrong:
        raise TlsUnusable(f"{certificate} and {key} cannot be used: {_words(wrong)}") from None


def _words(wrong: Exception) -> str:
    return getattr(wrong, "reason", None) or getattr(wrong, "strerror", None) or type(wrong).__name__
