"""Pictures of targets inside the page, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from irstd_edge.benchmarks.report_page import Html, element
from irstd_edge.edge.types import IrstdError

Picture = tuple[str, bytes]
"""(caption, PNG)."""

MAX_BYTES = 1_200_000
"""Of all pictures together: base64 adds a third, and the page is to stay below 3 MB."""
READING = (
    "In each row, left to right: the frame around the place, stretched to what is there; the "
    "probability that FP32 gives; that of the cheaper variant. Black is 0, yellow is 1."
)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pictures_section(pictures: Sequence[Picture]) -> Html:
    """A card of pictures, as many as fit, with a word on those that do not; empty without any."""
    if not pictures:
        return Html("")
    figures, used = [], 0
    for caption, png in pictures:
        if not png.startswith(_SIGNATURE):
            raise IrstdError(f"{caption}: the picture is not a PNG, encode it as one")
        used += len(png)
        if used <= MAX_BYTES:
            figures.append(_figure(caption, png))
    left_out = len(pictures) - len(figures)
    note = f"{left_out} more did not fit into the page." if left_out else ""
    return element(
        "section",
        element("h2", "Targets worth a look"),
        element("p", READING, class_="soft"),
        element("div", *figures, class_="pictures"),
        element("p", note, class_="soft") if note else "",
        class_="card",
    )


def _figure(caption: str, png: bytes) -> Html:
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    picture = element("img", src=source, alt=caption)
    return element("figure", picture, element("figcaption", caption))
