"""What is true on the device: frames, detections, bundles, runners. Imports no torch."""
