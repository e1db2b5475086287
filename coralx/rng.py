"""Random generators, each named by (seed, purpose, generation, index).

A draw depends on its name alone: not on what was drawn before, in which order jobs completed,
or whether the run was resumed.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def derive_seed(*names: int | str) -> int:
    """A 63-bit seed that is a pure function of `names`, the same on every machine."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(
    seed: int, purpose: str, generation: int = 0, index: int | str = 0
) -> np.random.Generator:
    """The generator for one draw site."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, generation, index)))
