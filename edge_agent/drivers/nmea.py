"""Read NMEA 0183 from a GNSS receiver: its GGA and RMC sentences become fixes and void fixes.

A receiver says each instant in two sentences: RMC has date, speed and course, GGA has satellites and precision. They
are put together by their time. Which sentences make an instant complete is learnt from the instant before, so that a
receiver set to send only one of them is not made to wait.

Lines are found in whatever comes: half lines after a reconnect, UBX and RTCM frames between them, a wrong speed of the
line. Framing follows NMEA 0183 4.11 section 5.3 (a line begins with $, ends with CR LF, and its checksum is the XOR of
all between $ and *), but lines may be longer than its 82 characters: receivers with many digits exceed it.
"""

import calendar
import datetime
import math
from typing import Any

import pynmea2  # type: ignore[import-untyped]  # It ships no types.

from edge_agent.drivers import ByteDriver, Clock, FrameRefused, Take
from edge_agent.sensing import Fix, Reading, VoidFix
from shared.quantities import EpochMs, Position

LONGEST_LINE = 128
KNOT_MPS = 1852 / 3600
DAY_MS = 86_400_000
TALKERS = {"GP", "GN", "GL", "GA", "GB", "BD", "GQ", "GI"}
"""GPS, mixed, GLONASS, Galileo, BeiDou (new and old name), QZSS, NavIC."""


class FrameChecksumWrong(FrameRefused):
    """The checksum of the line does not fit its letters: bytes were lost or changed on the way."""


class FrameChecksumMissing(FrameRefused):
    """The line carries no checksum, so nothing says that it arrived whole."""


class FrameNotText(FrameRefused):
    """There are bytes in the line that are no printable ASCII."""


class FrameTooLong(FrameRefused):
    """The line goes on for longer than any NMEA sentence; is the speed of the line (baud) right?"""


class FrameCut(FrameRefused):
    """A new line begins before the one before has ended: bytes were lost."""


class NoiseBetweenFrames(FrameRefused):
    """There are bytes outside of NMEA lines, such as UBX or RTCM frames; set the receiver to NMEA only."""


class FrameUnreadable(FrameRefused):
    """The line is whole but no NMEA sentence."""


class FieldUnreadable(FrameRefused):
    """The line is whole but a field of it holds no such thing."""


class TalkerUnknown(FrameRefused):
    """The sentence is a fix, but its talker is no satellite system."""


class LineFramer:
    """Finds NMEA lines in a stream of bytes; remembers at most one line."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._is_inside = False
        self._noise = 0

    def feed(self, chunk: bytes) -> list[bytes | FrameRefused]:
        """The lines (from $ to before CR or LF) and refusals in these bytes, in order."""
        found: list[bytes | FrameRefused] = []
        for byte in chunk:
            if byte == 0x24:  # $
                self._begin(found)
            elif byte in (0x0D, 0x0A):
                self._end(found)
            elif not self._is_inside:
                self._noise += 1
            elif len(self._line) < LONGEST_LINE:
                self._line.append(byte)
            else:
                found.append(FrameTooLong(_shown(self._line)))
                self._drop()
        return found

    def forget(self) -> None:
        """Begin anew with a new stream."""
        self._drop()
        self._noise = 0

    def _begin(self, found: list[bytes | FrameRefused]) -> None:
        if self._is_inside:
            found.append(FrameCut(_shown(self._line)))
        self._say_noise(found)
        self._line[:] = b"$"
        self._is_inside = True

    def _end(self, found: list[bytes | FrameRefused]) -> None:
        if self._is_inside:
            found.append(bytes(self._line))
        elif self._noise >= LONGEST_LINE:
            # Said now and then, or a receiver that only speaks UBX would never be noticed.
            self._say_noise(found)
        self._drop()

    def _say_noise(self, found: list[bytes | FrameRefused]) -> None:
        if self._noise:
            found.append(NoiseBetweenFrames(f"{self._noise} bytes"))
            self._noise = 0

    def _drop(self) -> None:
        self._line.clear()
        self._is_inside = False


class FixAssembler:
    """Puts the sentences of one instant together into one reading."""

    def __init__(self) -> None:
        self._rmc: pynmea2.RMC | None = None
        self._gga: pynmea2.GGA | None = None
        self._time: datetime.time | None = None
        self._at_ms = EpochMs(0)
        self._is_said = False
        self._kinds_before: frozenset[str] = frozenset({"RMC", "GGA"})

    def feed(self, line: bytes, at_ms: EpochMs) -> list[Reading]:
        """The readings this line completes. Raises FrameRefused for a line that cannot be read."""
        sentence = _sentence_in(line)
        if sentence is None:
            return []
        time_of_day = _time_in(sentence)
        _check_fields(sentence)
        readings: list[Reading] = []
        repeats = (self._rmc if isinstance(sentence, pynmea2.RMC) else self._gga) is not None
        if time_of_day != self._time or repeats or not self._kinds():
            readings += self._say()
            self._begin(time_of_day, at_ms)
        if isinstance(sentence, pynmea2.RMC):
            self._rmc = sentence
        else:
            self._gga = sentence
        if self._kinds() >= self._kinds_before:
            readings += self._say()
        return readings

    def forget(self) -> None:
        """Begin anew with a new stream."""
        self.__init__()  # type: ignore[misc]  # The only way to have one list of what a new assembler knows.

    def _begin(self, time_of_day: datetime.time | None, at_ms: EpochMs) -> None:
        if self._kinds():
            self._kinds_before = self._kinds()
        self._rmc = self._gga = None
        self._time, self._at_ms, self._is_said = time_of_day, at_ms, False

    def _kinds(self) -> frozenset[str]:
        present = (("RMC", self._rmc), ("GGA", self._gga))
        return frozenset(kind for kind, sentence in present if sentence is not None)

    def _say(self) -> list[Reading]:
        if self._is_said or not self._kinds():
            return []
        self._is_said = True
        if (self._rmc is not None and not _rmc_is_valid(self._rmc)) or (
            self._gga is not None and not self._gga.gps_qual
        ):
            return [VoidFix(at_ms=self._at_ms)]
        return [_fix_of(self._rmc, self._gga, self._time, self._at_ms)]


class NmeaDriver(ByteDriver):
    """The driver of a GNSS receiver."""

    silence_s = 10.0  # A receiver speaks at least once a second, fix or none.

    def __init__(self, url: str, clock: Clock, take: Take) -> None:
        super().__init__(url, clock, take)
        self._framer = LineFramer()
        self._assembler = FixAssembler()

    def _hear_new_stream(self) -> None:
        self._framer.forget()
        self._assembler.forget()

    def _hear(self, chunk: bytes) -> None:
        at_ms = self._now_ms()
        for line in self._framer.feed(chunk):
            if isinstance(line, FrameRefused):
                self._refuse(line)
                continue
            try:
                readings = self._assembler.feed(line, at_ms)
            except FrameRefused as refusal:
                self._refuse(refusal)
                continue
            for reading in readings:
                self._give(reading)


def _sentence_in(line: bytes) -> Any | None:
    """The GGA or RMC sentence in a line, None for a sentence of another kind."""
    if not all(0x20 <= byte <= 0x7E for byte in line):
        raise FrameNotText(_shown(line))
    text = line.decode("ascii")
    _check_sum(text)
    if text[3:6] not in ("GGA", "RMC"):
        return None
    if text[1:3] not in TALKERS:
        raise TalkerUnknown(text[:6])
    try:
        return pynmea2.parse(text, check=True)
    except (pynmea2.ParseError, ValueError, AttributeError) as error:
        raise FrameUnreadable(_shown(line)) from error


def _check_sum(text: str) -> None:
    """Judged here and not by pynmea2 so that a missing and a wrong checksum keep their own names."""
    body, star, written = text[1:].partition("*")
    if not star:
        raise FrameChecksumMissing(text[:40])
    total = 0
    for letter in body:
        total ^= ord(letter)
    if written.strip().upper() != f"{total:02X}":
        raise FrameChecksumWrong(f"*{written[:8]} where *{total:02X} fits")


def _time_in(sentence: Any) -> datetime.time | None:
    """The time of day; None when the receiver does not know it yet."""
    time_of_day = sentence.timestamp
    if time_of_day is None or isinstance(time_of_day, datetime.time):
        return time_of_day
    raise FieldUnreadable(f"time {time_of_day!r}")


def _check_fields(sentence: Any) -> None:
    """Read every field once, so that what is kept can be said: pynmea2 hands unreadable fields on as text."""
    if isinstance(sentence, pynmea2.RMC):
        if sentence.datestamp is not None and not isinstance(sentence.datestamp, datetime.date):
            raise FieldUnreadable(f"date {sentence.datestamp!r}")
        if sentence.status not in ("A", "V"):
            raise FieldUnreadable(f"status {sentence.status!r}")
        if not _rmc_is_valid(sentence):
            return
        _number(sentence.spd_over_grnd, "speed")
        _number(sentence.true_course, "course")
    else:
        if sentence.gps_qual is not None and not isinstance(sentence.gps_qual, int):
            raise FieldUnreadable(f"quality {sentence.gps_qual!r}")
        if not sentence.gps_qual:
            return
        _number(sentence.num_sats, "satellites")
        _number(sentence.horizontal_dil, "hdop")
    if sentence.timestamp is None:
        raise FieldUnreadable("a valid fix without a time")
    _position_in(sentence)


def _rmc_is_valid(rmc: Any) -> bool:
    """Status A, and no mode that says otherwise (NMEA 2.3 and later: N not valid, E dead reckoning, M by hand)."""
    return rmc.status == "A" and (len(rmc.data) < 12 or rmc.mode_indicator not in ("N", "E", "M"))


def _fix_of(rmc: Any | None, gga: Any | None, time_of_day: datetime.time | None, at_ms: EpochMs) -> Fix:
    knots = None if rmc is None else _number(rmc.spd_over_grnd, "speed")
    satellites = None if gga is None else _number(gga.num_sats, "satellites")
    return Fix(
        at_ms=at_ms,
        position=_position_in(rmc if rmc is not None else gga),
        speed_mps=None if knots is None else knots * KNOT_MPS,
        course_deg=None if rmc is None else _number(rmc.true_course, "course"),
        satellites=None if satellites is None else int(satellites),
        hdop=None if gga is None else _number(gga.horizontal_dil, "hdop"),
        utc_ms=_instant(None if rmc is None else rmc.datestamp, time_of_day, at_ms),
    )


def _number(field: Any, name: str) -> float | None:
    """A number, None when the field is empty."""
    if field is None or field == "":
        return None
    try:
        number = float(field)
    except ValueError:
        raise FieldUnreadable(f"{name} {field!r}") from None
    if not math.isfinite(number):
        raise FieldUnreadable(f"{name} {field!r}")
    return number


def _position_in(sentence: Any) -> Position:
    if sentence.lat_dir not in ("N", "S") or sentence.lon_dir not in ("E", "W"):
        # pynmea2 would say 0 degrees, and put the van in the Gulf of Guinea.
        raise FieldUnreadable(f"hemispheres {sentence.lat_dir!r} and {sentence.lon_dir!r}")
    if not sentence.lat or not sentence.lon:
        raise FieldUnreadable("a valid fix without a place")
    try:
        position = Position(lat=sentence.latitude, lon=sentence.longitude)
    except ValueError:
        raise FieldUnreadable(f"place {sentence.lat!r}, {sentence.lon!r}") from None
    if not (-90 <= position.lat <= 90 and -180 <= position.lon <= 180):
        raise FieldUnreadable(f"place {sentence.lat!r}, {sentence.lon!r}")
    return position


def _instant(date: datetime.date | None, time_of_day: datetime.time | None, at_ms: EpochMs) -> EpochMs | None:
    """The instant of the fix; a receiver that sends no date means the day that is nearest to now."""
    if time_of_day is None:
        return None
    of_day_ms = (
        (time_of_day.hour * 60 + time_of_day.minute) * 60 + time_of_day.second
    ) * 1000 + time_of_day.microsecond // 1000
    if date is not None:
        return EpochMs(calendar.timegm(date.timetuple()) * 1000 + of_day_ms)
    return EpochMs(of_day_ms + round((at_ms - of_day_ms) / DAY_MS) * DAY_MS)


def _shown(line: bytes | bytearray) -> str:
    return repr(bytes(line[:40]))
