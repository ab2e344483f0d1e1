"""Read what a row of orders says of its customer: how to reach them, what they agreed to, and what helps at the door.

An order whose e-mail address is wrong is still an order: the address is left out and remarked on. Only what would reach
the driver's eyes garbled, or is longer than anybody reads at a door, refuses the row.
"""

import re
from collections.abc import Mapping

from cloud_hub.contacts import LANGUAGES, LONGEST_AT_THE_DOOR, Channel, Customer, Language, Wishes
from cloud_hub.order_rows import OrderIn, RowWrong

LONGEST_NAME = 100
LONGEST_EMAIL = 254
"""RFC 5321, 4.5.3.1.3, less the angle brackets."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@(?:{_LABEL}\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]")
"""The address a browser's form accepts (WHATWG HTML, 4.10.5.1.5), with at least two labels. It has no place for a line
break, a comma or a second address.
"""

_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
"""ITU-T E.164."""

_CONSENT_WORDS: Mapping[str, Channel] = {
    "email": "email", "e-mail": "email", "mail": "email", "sms": "sms", "text": "sms", "webhook": "webhook",
}  # fmt: skip
_NONE_WORDS = frozenset(("none", "no", "nothing", "0", "-", "ei", "nej"))


def email_in(text: str) -> str | None:
    """The address; None when it is none."""
    written = text.strip()
    return written if len(written) <= LONGEST_EMAIL and _EMAIL.fullmatch(written) else None


def phone_in(text: str, country_code: str) -> str | None:
    """The number as E.164 (+358401234567); None when it is none. `country_code` (358) stands in for a leading 0."""
    digits = re.sub(r"[\s().\-/\u00a0]", "", text)
    if digits.startswith("00"):
        digits = f"+{digits[2:]}"
    elif digits.startswith("0") and country_code:
        digits = f"+{country_code}{digits[1:]}"
    return digits if _PHONE.fullmatch(digits) else None


def refuse_unreadable(order: OrderIn) -> None:
    """Raises RowWrong when what helps at the door is too long or holds control characters."""
    for name, longest in LONGEST_AT_THE_DOOR.items():
        text = getattr(order, name)
        if len(text) > longest:
            raise RowWrong(f"a {name} longer than {longest} characters", "less", "shorten it")
        if any(not sign.isprintable() and sign != "\n" for sign in text):
            raise RowWrong(f"a {name} with control characters", "plain text", "remove them")


def customer_of(
    order: OrderIn, known_languages: Mapping[str, Language], language: Language, country_code: str
) -> tuple[Customer | None, tuple[str, ...]]:
    """What the row says of its customer, None when nothing; and remarks on what is left out. No remark repeats it."""
    remarks = []
    reference = order.customer_ref or order.order_id
    name, email, phone = order.name.strip(), "", ""
    if len(name) > LONGEST_NAME or not name.isprintable():
        name = ""
        remarks.append(f"a name longer than {LONGEST_NAME} characters or with control characters")
    if order.email.strip():
        email = email_in(order.email) or ""
        if not email:
            remarks.append("an e-mail address that is none, expected name@host.fi")
    if order.phone.strip():
        phone = phone_in(order.phone, country_code) or ""
        if not phone:
            remarks.append("a phone number that is none, expected +358401234567")
    consents, has_refused, strange = _consents(order.consent)
    if strange:
        remarks.append(f"consent to {strange[0][:20]!r}, expected email, sms or none")
    remarks += [
        f"consent to {channel} without an address for it"
        for channel, address, said in (("email", email, order.email), ("sms", phone, order.phone))
        if channel in consents and not address and not said.strip()
    ]
    spoken = order.language.strip().casefold()[:2]
    said_language = next((each for each in LANGUAGES if each == spoken), None)
    if spoken and said_language is None:
        remarks.append(f"a language we do not write, expected {', '.join(LANGUAGES)}")
    wishes = Wishes(
        order.door_code.strip(), order.safe_place.strip(), order.neighbour.strip(), on_its_way=order.on_its_way
    )
    says_anything = any((name, email, phone, consents, has_refused, said_language, wishes != Wishes()))
    customer = Customer(
        reference,
        name,
        email,
        phone,
        said_language or known_languages.get(reference, language),
        consents,
        wishes=wishes,
        opted_out_channels=("email", "sms") if has_refused else (),
    )
    found = f"order {order.order_id}: "
    return customer if says_anything else None, tuple(f"{found}{remark}; left out" for remark in remarks)


def _consents(said: str | tuple[str, ...]) -> tuple[tuple[Channel, ...], bool, list[str]]:
    """The channels agreed to, whether none was, and words that are no channel."""
    words = re.split(r"[\s,;/|+&]+", said) if isinstance(said, str) else said
    spoken = [word.strip().casefold() for word in words if word.strip()]
    channels = tuple(dict.fromkeys(_CONSENT_WORDS[word] for word in spoken if word in _CONSENT_WORDS))
    strange = [word for word in spoken if word not in _CONSENT_WORDS and word not in _NONE_WORDS]
    return channels, bool(spoken) and not channels and not strange, strange
