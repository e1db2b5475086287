"""How fast this machine multiplies matrices of a base's shapes: `coralx.training.matrix_rate JSON`.

A process of its own, so that the driver needs no torch, and threads are set before torch starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import torch
from torch.nn.functional import linear

SECONDS = 1.5
"""How long products are timed."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def rate_of(
    shapes: Sequence[tuple[int, int]], rows: int, precision: str, device: str, seconds: float
) -> float:
    """The most floating-point operations a second, of rounds in which `rows` vectors pass through a
    layer of each of the `shapes` (inputs, outputs); at least one round after the first is timed."""
    dtype = DTYPES.get(precision, torch.float32)
    layers = [
        (torch.randn(rows, width, dtype=dtype, device=device), torch.randn(out, width).to(device))
        for width, out in shapes
    ]
    pairs = [(vectors, weight.to(dtype)) for vectors, weight in layers]
    operations = sum(2.0 * rows * width * out for width, out in shapes)
    best, began = 0.0, time.monotonic()
    with torch.inference_mode():
        _round(pairs, device)
        while not best or time.monotonic() - began < seconds:
            at = time.perf_counter()
            _round(pairs, device)
            best = max(best, operations / (time.perf_counter() - at))
    return best


def _round(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], device: str) -> None:
    for vectors, weight in pairs:
        linear(vectors, weight)
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def main(text: str) -> None:
    """Print the rate for what is asked, as JSON."""
    asked = json.loads(text)
    torch.set_num_threads(asked["threads"])
    shapes = [(int(width), int(out)) for width, out in asked["shapes"]]
    rate = rate_of(shapes, asked["rows"], asked["precision"], asked["device"], SECONDS)
    print(json.dumps({"flops_per_second": rate}))


if __name__ == "__main__":
    main(sys.argv[1])
