"""From FP32 to INT8: calibration frames, quantization and its export."""
