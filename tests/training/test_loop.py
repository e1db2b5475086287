"""What the training steps draw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from coralx.training.loop import Trainer  # noqa: E402


def test_steps_on_a_cpu_draw_as_if_all_devices_had_been_seeded() -> None:
    trainer: Any = SimpleNamespace(parameters=[torch.nn.Parameter(torch.zeros(1))])
    Trainer._seed_draws(trainer, 7)
    found = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(3))
