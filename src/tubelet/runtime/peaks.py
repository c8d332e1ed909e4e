"""The peak speed of GPUs, from their makers' data sheets."""

from __future__ import annotations

import torch

PEAKS: dict[str, tuple[float, float]] = {
    "B200": (2250, 75),
    "H100 PCIe": (756, 51),
    "H100 NVL": (835, 60),
    "H100": (989, 67),
    "H200": (989, 67),
    "GH200": (989, 67),
    "A100": (312, 19.5),
    "A800": (312, 19.5),
    "L40S": (362, 91.6),
    "L40": (181, 90.5),
    "L4": (121, 30.3),
    "A40": (150, 37.4),
    "A30": (165, 10.3),
    "A10": (125, 31.2),
    "RTX A6000": (155, 38.7),
    "RTX A5000": (111, 27.8),
    "RTX 6000 Ada": (364, 91.1),
    "RTX 4090": (165, 82.6),
    "RTX 3090": (71, 35.6),
    "V100": (125, 15.7),
    "T4": (65, 8.1),
}
"""Part of the GPU's name -> TFLOP/s of matrix products in 16 bits (without sparsity, float32 sums) and in float32."""


def peak_tflops(name: str, precision: str) -> float | None:
    """The peak of the GPU that calls itself `name`, at a Lightning `precision` ("bf16-mixed", "32-true", ...); None if
    it is not known. Float32 with TF32 switched on is not known either.
    """
    words = f" {name.replace('-', ' ')} "
    found = [part for part in PEAKS if f" {part} " in words]
    if not found or precision.startswith("64"):
        return None
    half, single = PEAKS[max(found, key=len)]
    if precision.startswith(("bf16", "16")):
        return half
    return single if torch.get_float32_matmul_precision() == "highest" else None
