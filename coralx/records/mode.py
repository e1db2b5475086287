"""What a run may be made for: to be named without loading anything."""

from __future__ import annotations

from typing import Literal

Mode = Literal["simulation", "hyperband", "full"]
