"""Libraries that report home by default are silenced before they are imported.

What was found in the packages themselves:

- `import openvino` builds an `openvino_telemetry.Telemetry`, writes ~/intel/openvino_ga_cid and
  ~/intel/stats, and sends an event from a child process. `import nncf` builds one too: NNCF_CI only
  replaces it afterwards, so the files are still written. Both fall back to stubs of their own when
  `openvino_telemetry` cannot be imported, and `None` in sys.modules is Python's way to refuse it.
- onnxruntime >= 1.29 on Linux starts an uploader and writes a device id and a database to ~/.cache
  when it is imported, unless ORT_DISABLE_TELEMETRY=1 is in the environment by then.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def silence_telemetry() -> None:
    """Make it impossible for onnxruntime, openvino and nncf to report home or mark the home folder.

    Call it before the first import of any of them; it is cheap and may be called again. Where the
    host program imported one of them earlier, what it would still send is dropped.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if "onnxruntime" in sys.modules:
        sys.modules["onnxruntime"].disable_telemetry_events()
    if sys.modules.get("openvino_telemetry") is None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    else:
        _drop_messages()


def _drop_messages() -> None:
    """Every message of a loaded openvino_telemetry goes through this one method."""
    sender: Any = sys.modules["openvino_telemetry.utils.sender"]
    sender.TelemetrySender.send = lambda self, backend, message: None
