"""What things cost: the one table of prices that plans, policies and reports read.

Amounts are in the currency of the file. The shipped figures are round numbers of Northern European parcel delivery,
there to be replaced by a company's own (`shared/costs.toml`, read with `shared.settings.read_settings`).
"""

from typing import Annotated

import msgspec

Price = Annotated[float, msgspec.Meta(ge=0)]


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices per unit, in `currency` (ISO 4217).

    `per_breach` is what a missed slot costs in refunds and goodwill, `per_late_min` each minute after the end of the
    window last told. `per_intervention` is one person's call or click that takes minutes. `next_day`, `locker` and
    `return_to_sender` are what a failed attempt costs by the way it goes on, above driving and time.
    """

    currency: str = "EUR"
    per_km: Price = 0.32
    per_driver_hour: Price = 27.0
    per_overtime_hour: Price = 40.5
    per_sms: Price = 0.05
    per_email: Price = 0.001
    per_intervention: Price = 4.5
    per_breach: Price = 6.0
    per_late_min: Price = 0.1
    next_day: Price = 4.2
    locker: Price = 1.6
    return_to_sender: Price = 7.5
