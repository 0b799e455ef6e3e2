"""irstd-edge: infrared small-target detectors in INT8 on the edge, with what it cost."""

from irstd_edge.edge.quiet import silence_telemetry

__version__ = "0.1.0"

# Before anything of ours, or a test of it, imports a runtime that reports home.
silence_telemetry()
