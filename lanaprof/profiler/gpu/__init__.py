"""NVIDIA GPUs: finding them (probe), using them (driver), their clocks (nvml), and timing on them (clock)."""
