"""Read a hand scanner: one label per line, as the scanner sends it.

A label keeps its AIM symbology prefix (]C1, ]d2, ...) when the scanner is set to send one: whoever reads the label
takes it off, and knows by it what kind of barcode was read. Lines end with CR, LF or both. The separators of GS1 and of
ISO/IEC 15434 (GS, RS, EOT) are part of labels; other unprintable bytes are not, and such a line is refused whole,
because half a label could be another parcel's.
"""

from edge_agent.drivers import ByteDriver, Clock, FrameRefused, Take
from edge_agent.sensing import Scan

LONGEST_LABEL = 256
SEPARATORS = {0x1D, 0x1E, 0x04}


class LabelTooLong(FrameRefused):
    """The line is longer than any label; expected at most 256 characters."""


class LabelNotPrintable(FrameRefused):
    """There are bytes in the label that no label holds; set the scanner to send text, with CR as its only suffix."""


class LabelNeverEnds(FrameRefused):
    """A label came without an end of line; set the scanner's suffix to CR, LF or both."""


class LabelFramer:
    """Finds labels in a stream of bytes; remembers at most one label."""

    def __init__(self) -> None:
        self._label = bytearray()
        self._is_too_long = False

    def feed(self, chunk: bytes) -> list[str | FrameRefused]:
        """The labels and refusals in these bytes, in order."""
        found: list[str | FrameRefused] = []
        for byte in chunk:
            if byte in (0x0D, 0x0A):
                self._end(found)
            elif len(self._label) < LONGEST_LABEL:
                self._label.append(byte)
            else:
                self._is_too_long = True
        return found

    def give_up(self) -> FrameRefused | None:
        """Drop a line that has not ended, None when there is none."""
        if not self._label:
            return None
        refusal = LabelTooLong() if self._is_too_long else LabelNeverEnds(f"{len(self._label)} characters")
        self._drop()
        return refusal

    def _end(self, found: list[str | FrameRefused]) -> None:
        if self._is_too_long:
            found.append(LabelTooLong())
        elif not all(0x20 <= byte <= 0x7E or byte in SEPARATORS for byte in self._label):
            found.append(LabelNotPrintable(repr(bytes(self._label[:40]))))
        elif self._label.strip():
            found.append(self._label.strip().decode("ascii"))
        self._drop()

    def _drop(self) -> None:
        self._label.clear()
        self._is_too_long = False


class ScannerDriver(ByteDriver):
    """The driver of a hand scanner. Silence is normal: a driver on the road scans nothing."""

    patience_s = 2.0  # A label is sent in one go; a line this old will never end.

    def __init__(self, url: str, clock: Clock, take: Take) -> None:
        super().__init__(url, clock, take)
        self._framer = LabelFramer()

    def _hear_new_stream(self) -> None:
        self._hear_silence()

    def _hear_silence(self) -> None:
        refusal = self._framer.give_up()
        if refusal is not None:
            self._refuse(refusal)

    def _hear(self, chunk: bytes) -> None:
        for label in self._framer.feed(chunk):
            if isinstance(label, FrameRefused):
                self._refuse(label)
            else:
                self._give(Scan(at_ms=self._now_ms(), text=label))
