"""Files of the kernel's: most machines lack most of them, and a sensor may refuse to answer."""

from __future__ import annotations

import re
from pathlib import Path


def read_text(file: Path) -> str | None:
    """What it holds, without NULs and white space around it; None for nothing."""
    try:
        return file.read_text(errors="replace").replace("\0", " ").strip() or None
    except OSError:  # missing, closed to us, or of a part that is powered down
        return None


def read_number(file: Path) -> int | None:
    """The integer that it holds, or None."""
    text = read_text(file)
    return int(text) if text and re.fullmatch(r"-?\d+", text) else None
