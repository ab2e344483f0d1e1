"""The list of doubtful orders a person puts right: written as CSV, read when it is signed."""

import csv
import io

from cloud_hub.geocode import Corrections
from cloud_hub.intake import Intake, right_position
from cloud_hub.order_rows import OrdersUnreadable, Refused, RowWrong, column_name, decoded, number_in, records_of

CORRECTION_COLUMNS = ("text", "lat", "lon", "by", "order_id", "suggestion", "why")


def list_of_corrections(intake: Intake) -> str:
    """The doubtful orders as CSV for a person, who puts `lat` and `lon` right and signs in `by`."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(CORRECTION_COLUMNS)
    for doubtful in intake.doubtful:
        order = doubtful.order
        text = order.address.strip() or f"{order.lat:.6f}, {order.lon:.6f}"
        best = doubtful.candidates[0] if doubtful.candidates else None
        place = (f"{best.position.lat:.6f}", f"{best.position.lon:.6f}") if best else ("", "")
        suggestion = best.address if best else ""
        table.writerow((text, *place, "", order.order_id, suggestion, doubtful.what_found))
    return out.getvalue()


def read_corrections(data: bytes, corrections: Corrections) -> tuple[Corrections, tuple[Refused, ...]]:
    """The corrections a person has signed, added to those known; rows nobody signed are passed over.

    Raises OrdersUnreadable when the file is no such list.
    """
    text, _ = decoded(data)
    records = records_of(text)
    header = [column_name(cell) for cell in records[0][1]] if records else []
    if not {"text", "lat", "lon", "by"} <= set(header):
        raise OrdersUnreadable(
            f"found the columns {', '.join(header)!r}, expected text, lat, lon, by: use the list as written"
        )
    refused = []
    for line, cells in records[1:]:
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        try:
            if row.get("by") and row.get("text"):
                position = right_position(number_in(row, "lat"), number_in(row, "lon"))
                corrections = corrections.with_correction(row["text"], position, row["by"])
        except RowWrong as wrong:
            refused.append(Refused(line, row.get("order_id", ""), wrong.found, wrong.expected, wrong.do))
    return corrections, tuple(refused)
