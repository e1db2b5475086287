"""The training steps: what they draw, what they read from the device, and how they end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.autograd.function import Function  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from coralx.backends.protocol import no_beat  # noqa: E402
from coralx.config.runtime import Training  # noqa: E402
from coralx.records.genomes import Genes  # noqa: E402
from coralx.records.jobs import Horizon, Job  # noqa: E402
from coralx.records.results import Divergence  # noqa: E402
from coralx.tasks.protocol import Encoded  # noqa: E402
from coralx.training.initial_weights import StageStart  # noqa: E402
from coralx.training.loop import Trace, Trainer, learning_rate_at  # noqa: E402
from coralx.training.stage_result import result_of  # noqa: E402
from tests.support.factories import make_genome  # noqa: E402

STEPS, ROWS = 12, 6
HORIZON = Horizon(total_steps=40, warmup_steps=2)
SETTINGS = Training(max_grad_norm=0.5)


def test_steps_on_a_cpu_draw_as_if_all_devices_had_been_seeded() -> None:
    trainer: Any = SimpleNamespace(parameters=[torch.nn.Parameter(torch.zeros(1))])
    Trainer._seed_draws(trainer, 7)
    found = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(3))


# -- a toy to train ------------------------------------------------------------------------------


class Through16Bits(Function):
    """Nothing, with a gradient of `slope` that goes through float16 on its way back."""

    @staticmethod
    def forward(ctx: Any, weight: Any, slope: float) -> Any:
        ctx.slope, ctx.like = slope, weight
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return (gradient * ctx.slope).half().float().expand_as(ctx.like), None


@dataclass
class Toy:
    """A regression with dropout; `slopes` and `losses` are added at steps, from 0."""

    slopes: Mapping[int, float]
    losses: Mapping[int, float]
    eval_tokens: int = 1 << 10
    step: int = -1

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        return sum(len(data.ids[row]) for row in rows)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> Any:
        wanted = torch.tensor(data.labels[list(rows)]).float()
        found = model(torch.stack([torch.full((4,), row / 10) for row in rows])).squeeze(-1)
        loss = (torch.nn.functional.dropout(found, 0.1) - wanted).square().mean()
        if self.step in self.slopes:
            loss = loss + Through16Bits.apply(model.weight, self.slopes[self.step])
        is_last = rows[-1] == len(data.ids) - 1
        return loss + self.losses.get(self.step, 0.0) if is_last else loss


def toy(
    slopes: Mapping[int, float] | None = None,
    losses: Mapping[int, float] | None = None,
    *,
    scale: float | None = None,
    fused: bool = False,
) -> Trainer:
    """Its losses scaled by `scale` (None: in another precision than fp16)."""
    torch.manual_seed(0)
    model, task = torch.nn.Linear(4, 1), Toy(slopes or {}, losses or {})
    parameters = list(model.parameters())

    def rows_of(step: int) -> Any:
        task.step = step
        return np.arange(ROWS)

    return Trainer(
        model=model,
        parameters=parameters,
        optimizer=torch.optim.AdamW(parameters, lr=0.0, fused=fused or None),
        task=task,
        data=Encoded(tuple((1,) * (1 + row) for row in range(ROWS)), np.arange(ROWS) % 2),
        rows_of=rows_of,
        settings=SETTINGS,
        autocast=nullcontext,
        scaler=torch.amp.GradScaler("cpu", scale or 1.0, enabled=scale is not None),
    )


def a_job(last: int = STEPS, **changes: Any) -> Job:
    genome = make_genome("a", Genes(learning_rate=0.05, batch_size=ROWS))
    return Job(genome, "S0", 0, last, HORIZON, 1.0, None, **changes)


def trained(trainer: Trainer, job: Job | None = None, micro_batch: int | None = None) -> Trace:
    trace = Trace(micro_batch=micro_batch)
    trainer.run(job or a_job(), trace, lambda _: None, no_beat, lambda: None, math.inf)
    return trace


def weights_of(trainer: Trainer) -> list[float]:
    return [float(x) for parameter in trainer.parameters for x in parameter.detach().flatten()]


# -- one read a step -----------------------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Counts the numbers that are read off tensors one by one, as `.item()` does."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("scale", [None, 2.0**16], ids=["plain", "scaled"])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_reads_the_device_once(
    scale: float | None, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, whole = toy(scale=scale, fused=True), list[int]()
    tolist = torch.Tensor.tolist

    def noted(tensor: Any) -> Any:
        whole.append(tensor.numel())
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", noted)
    with Reads() as reads:
        trained(trainer, micro_batch=micro_batch)
    assert (reads.count, len(whole)) == (0, STEPS)


def figure_by_figure(trainer: Trainer, micro_batch: int) -> Trace:
    """The steps with every figure read where it arises, and none taken after an ill one."""
    job, trace = a_job(), Trace(micro_batch=micro_batch)
    data, task = trainer.data, trainer.task
    for step in range(STEPS):
        for group in trainer.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, 0.05, HORIZON, SETTINGS.lr_schedule)
        rows, mean = trainer.rows_of(step).tolist(), 0.0
        torch.manual_seed(job.genome.draw("step", step))
        for start in range(0, ROWS, micro_batch):
            part = rows[start : start + micro_batch]
            share = task.weight(data, part) / task.weight(data, rows)
            loss = task.loss(trainer.model, data, part)
            mean += share * loss.item()
            if not math.isfinite(mean):
                trace.divergence = Divergence(step + 1, "loss")
                return trace
            (share * loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(trainer.parameters, SETTINGS.max_grad_norm).item()
        if not math.isfinite(norm):
            trace.divergence = Divergence(step + 1, "gradient")
            return trace
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        trace.losses.append(mean)
        trace.norms.append(norm)
        if not all(math.isfinite(weight) for weight in weights_of(trainer)):
            trace.divergence = Divergence(step + 1, "parameter")
            return trace
    return trace


@contextmanager
def overflowing(trainer: Trainer, at: int | None) -> Iterator[None]:
    """Makes a parameter infinite in the optimizer's step of that number."""
    taken = iter(range(STEPS))

    def overflow(*_: object) -> None:
        if next(taken) == at:
            trainer.parameters[0].data[0, 0] = math.inf

    with trainer.optimizer.register_step_post_hook(overflow):
        yield


@pytest.mark.parametrize("micro_batch", [ROWS, 2])
@pytest.mark.parametrize(
    ("ill", "at", "found"),
    [
        ({}, None, None),
        ({"losses": {3: math.nan}}, None, Divergence(4, "loss")),
        ({"losses": {3: math.inf}, "slopes": {3: math.inf}}, None, Divergence(4, "loss")),
        ({"slopes": {0: math.nan}}, None, Divergence(1, "gradient")),
        ({"slopes": {5: 1e6}}, 5, Divergence(6, "gradient")),
        ({}, 4, Divergence(5, "parameter")),
    ],
    ids=["well", "loss", "loss first", "gradient", "gradient first", "parameter"],
)
def test_a_step_read_at_its_end_is_the_step_read_on_the_way(
    ill: dict[str, Any], at: int | None, found: Divergence | None, micro_batch: int
) -> None:
    trainer, other = toy(**ill), toy(**ill)
    with overflowing(trainer, at):
        trace = trained(trainer, micro_batch=micro_batch)
    with overflowing(other, at):
        wanted = figure_by_figure(other, micro_batch)
    assert trace.divergence == wanted.divergence == found
    assert (trace.losses, trace.norms) == (wanted.losses, wanted.norms)
    if found is None:
        assert weights_of(trainer) == weights_of(other)


# -- losses scaled for float16 -------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_scaling_losses_changes_no_figure_and_no_weight(fused: bool) -> None:
    """A power of two changes no digit: norms are of unscaled gradients, and so clipping is."""
    plain, scaled = toy(fused=fused), toy(scale=2.0**10, fused=fused)
    wanted, found = trained(plain), trained(scaled)
    assert (found.losses, found.norms, found.skipped) == (wanted.losses, wanted.norms, [])
    assert weights_of(scaled) == weights_of(plain)
    assert max(found.norms) > SETTINGS.max_grad_norm


@pytest.mark.parametrize("fused", [False, True])
def test_an_infinite_gradient_skips_its_step_and_halves_the_scale(fused: bool) -> None:
    before = toy(scale=2.0**16, fused=fused)
    trained(before, a_job(1))
    trainer = toy({1: 1.5, 2: 1.5}, scale=2.0**16, fused=fused)  # 98,304, then 49,152: it fits
    moved: list[list[float]] = []
    trainer.optimizer.register_step_pre_hook(lambda *_: moved.append(weights_of(trainer)))
    trace = trained(trainer)
    assert (trace.divergence, trace.skipped, trainer.scaler.get_scale()) == (None, [1], 2.0**15)
    assert (len(trace.losses), len(trace.norms)) == (STEPS, STEPS - 1)
    assert all(math.isfinite(norm) for norm in trace.norms)
    assert trace.norms[1] > 1.5  # step 2's, unscaled
    # Step 2 starts from what step 0 left. The fused optimizer is called in step 1, too.
    assert moved[2 if fused else 1] == weights_of(before)
    assert trace.tokens == STEPS * sum(1 + row for row in range(ROWS))
    result = result_of(a_job(), StageStart(0), trace, {}, (), 0.0, 0.0)
    assert (result.steps, result.skipped_steps, result.taken_steps) == (STEPS, 1, STEPS - 1)
    # Two steps of the twelve warm up, of which the second was skipped.
    assert result.judged_steps == STEPS - 2


def test_skipped_steps_are_none_to_judge_by() -> None:
    trace = trained(toy({2: 1.5, 5: 3.0}, scale=2.0**16))
    assert trace.skipped == [2, 5]
    result = result_of(a_job(), StageStart(0), trace, {}, (), 0.0, 0.0)
    assert result.judged_steps == STEPS - 2 - 2


def test_a_gradient_that_is_infinite_at_any_scale_is_a_divergence() -> None:
    trace = trained(toy(dict.fromkeys(range(2, STEPS), math.inf), scale=8.0))
    assert trace.skipped == [2, 3, 4]  # at 8, 4 and 2
    assert trace.divergence == Divergence(6, "gradient at a loss scale of 1")
    assert trace.divergence.reason == "gradient at a loss scale of 1 is not finite"
    assert len(trace.losses) == 5


def test_an_infinite_loss_is_a_divergence_at_any_scale() -> None:
    trace = trained(toy(losses={3: math.inf}, scale=2.0**16))
    assert (trace.divergence, trace.skipped) == (Divergence(4, "loss"), [])
