"""The devices of one simulated van, put together: GNSS, hand scanner and, when it has one, its bus."""

from typing import Literal

from firmware_sim.devices import Truth
from firmware_sim.devices.ecu import BusDevice, J1939Truck, ObdEcu
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver
from firmware_sim.devices.scanner import HandScanner
from shared.labels import scan_text

COMMON_FAULTS = GnssFaults(noise_m=3.0, void_share=0.004, void_run=6.0, dropout_share=0.002, wrong_checksum_share=0.002)
"""A sound receiver between tall houses: now and then no fix for some seconds, now and then a broken line."""


class Instruments:
    """All devices of a van, fed by one truth. Ports are open at once; `start` lets them speak."""

    def __init__(
        self,
        truth: Truth,
        *,
        gnss_port: int,
        scanner_port: int,
        gnss_hz: float,
        gnss_faults: GnssFaults,
        can: str,
        can_profile: Literal["obd2", "j1939"],
        seed: int,
    ) -> None:
        """`can` is a bus URL or "" for a van without one.

        Raises OSError when a port is taken and ValueError for a rate no receiver has.
        """
        self.gnss = GnssReceiver(truth, gnss_hz, seed, gnss_faults, port=gnss_port)
        self.scanner = HandScanner(seed, port=scanner_port)
        self._bus: BusDevice | None = None
        if can:
            self._bus = ObdEcu(can, truth, seed=seed) if can_profile == "obd2" else J1939Truck(can, truth)

    def start(self) -> None:
        """Begin to speak: the truth is known from now on."""
        self.gnss.start()
        self.scanner.start()
        if self._bus is not None:
            self._bus.start()

    def scan(self, label: str) -> None:
        """Point the scanner at the label of this canonical text; it reads what is printed there."""
        self.scanner.scan(scan_text(label) if ":" in label else label)

    def stop(self) -> None:
        """Take the devices away."""
        if self._bus is not None:
            self._bus.stop()
        self.gnss.stop()
        self.scanner.stop()
