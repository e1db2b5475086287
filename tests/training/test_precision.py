"""Which precision is taken: as configured or recorded, as the hardware computes, or as measured."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from coralx.config import Config, parse_config  # noqa: E402
from coralx.errors import ConfigError  # noqa: E402
from coralx.training import precision as precisions  # noqa: E402
from coralx.training.adapters import load_optimizer  # noqa: E402
from coralx.training.footprint import footprint_without_weights  # noqa: E402
from coralx.training.precision import (  # noqa: E402
    base_dtype,
    bytes_of,
    faster_precision,
    known_precision,
    loss_scaler,
    precision_of,
)
from coralx.training.stage_training import adamw  # noqa: E402

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


@pytest.fixture(params=["turing", "ampere"])
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Turing, too, says that it computes in bf16, if it may emulate that."""

    def supports(including_emulation: bool = True) -> bool:
        return including_emulation or request.param == "ampere"

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supports)
    return str(request.param)


def configured(tiny_config: dict[str, Any], precision: str) -> Config:
    tiny_config["training"]["precision"] = precision
    return parse_config(tiny_config, "test")


def test_a_language_model_takes_16_bits_on_a_gpu_in_the_format_that_it_computes_in(
    card: str, tiny_config: dict[str, Any]
) -> None:
    config = configured(tiny_config, "auto")
    known = known_precision(config, None, CUDA, held_in_half=True)
    assert (
        known
        == {
            "turing": ("fp16", "the GPU does not compute in bf16"),
            "ampere": ("bf16", "the GPU computes in bf16"),
        }[card]
    )
    wanted = {"turing": torch.float16, "ampere": torch.bfloat16}[card]
    assert base_dtype(known[0], CUDA, held_in_half=True) == wanted
    assert loss_scaler(known[0], CPU).is_enabled() == (card == "turing")
    # What is held in float32, and all on a CPU, is measured first.
    assert known_precision(config, None, CUDA, held_in_half=False) is None
    assert known_precision(config, None, CPU, held_in_half=True) is None
    assert base_dtype(known[0], CUDA, held_in_half=False) == torch.float32
    assert base_dtype("fp16", CPU, held_in_half=True) == torch.float32


def test_a_run_goes_on_in_the_precision_that_it_recorded(
    card: str, tiny_config: dict[str, Any]
) -> None:
    """On old cards, runs of earlier versions recorded fp32."""
    for recorded in ("fp32", "fp16"):
        config = configured(tiny_config, "auto")
        known = known_precision(config, recorded, CUDA, held_in_half=True)
        assert known == (recorded, "as configured or recorded"), card


def test_what_the_device_lacks_is_refused_with_a_way_out(tiny_config: dict[str, Any]) -> None:
    config = configured(tiny_config, "fp16")
    assert known_precision(config, None, CPU, held_in_half=True) is not None
    with pytest.raises(ConfigError, match="fp16 is for CUDA GPUs; this worker trains on mps") as no:
        known_precision(config, None, MPS, held_in_half=True)
    assert no.value.hint == "Set training.precision to bf16, fp32 or auto."


@pytest.mark.parametrize("card", ["turing"], indirect=True)
@pytest.mark.usefixtures("card")
def test_bf16_is_refused_where_it_is_only_emulated(tiny_config: dict[str, Any]) -> None:
    config = configured(tiny_config, "bf16")
    with pytest.raises(ConfigError, match="this GPU does not compute in bf16") as named:
        known_precision(config, None, CUDA, held_in_half=False)
    assert named.value.hint == "Set training.precision to fp16, fp32 or auto."
    automatic = configured(tiny_config, "auto")
    with pytest.raises(ConfigError, match="the run trains in bf16, but this GPU does not") as old:
        known_precision(automatic, "bf16", CUDA, held_in_half=True)
    assert "runtime.devices" in old.value.hint
    assert "training.precision: fp16" in old.value.hint


def test_fp32_is_measured_against_the_devices_own_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "half_precision", lambda _: "fp16")
    monkeypatch.setattr(precisions, "product_seconds", lambda *_: 0.0)
    model, seen = torch.nn.Linear(4, 4), list[Any]()

    def loss(rows: Any) -> Any:
        found = model(torch.ones(len(rows), 4))
        seen.append(found.dtype)
        return found.float().sum()

    chosen, reason = faster_precision(model, loss, [[0], [0, 1]], CPU)
    assert chosen in ("fp32", "fp16")
    assert "in fp16" in reason
    assert set(seen) == {torch.float32, torch.float16}


def test_no_step_is_tried_where_a_matrix_product_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"fp32": 0.001, "bf16": 0.013}
    monkeypatch.setattr(precisions, "product_seconds", lambda name="fp32": seconds[name])

    def loss(_: Any) -> Any:
        raise AssertionError("a step was taken")

    model = torch.nn.Linear(4, 4)
    assert faster_precision(model, loss, [[0], [0]], CPU) == (
        "fp32",
        "a matrix product takes 13 ms in bf16, 1 ms in fp32",
    )


@pytest.mark.parametrize(
    ("half", "steps", "chosen"), [(0.5, 3, "bf16"), (0.95, 3, "fp32"), (9.0, 1, "fp32")]
)
def test_measuring_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, half: float, steps: int, chosen: str
) -> None:
    """After two seconds what there is decides, and half precision that is far slower is tried in no
    second step."""
    monkeypatch.setattr(precisions, "product_seconds", lambda *_: 0.0)
    model, now, taken = torch.nn.Linear(4, 4), [0.0], list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def loss(rows: Any) -> Any:
        found = model(torch.ones(len(rows), 4))
        taken.append("bf16" if found.dtype == torch.bfloat16 else "fp32")
        now[0] += 0.5 * (half if taken[-1] == "bf16" else 1.0)
        return found.float().sum()

    precision, reason = faster_precision(model, loss, [[0]] * 9, CPU)
    assert precision == chosen
    assert taken == ["fp32", "bf16"] * steps
    assert reason == f"a step takes {500 * half:.0f} ms in bf16, 500 ms in fp32"


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2), ("fp16", 2)])
def test_bytes_of_an_activation(precision: str, size: int, tiny_config: dict[str, Any]) -> None:
    assert bytes_of(precision) == size
    assert precision_of(precisions.dtype_of(precision)) == precision
    footprint = footprint_without_weights(configured(tiny_config, precision), CPU)
    assert footprint.activation_bytes == size


def test_a_base_that_overflows_in_fp16_is_trained_in_fp32(
    card: str, tiny_config: dict[str, Any]
) -> None:
    """Known beforehand, or seen where it is measured."""
    config = configured(tiny_config, "auto")
    known = known_precision(config, None, CUDA, held_in_half=True, overflows=True)
    assert (
        known
        == {
            "turing": (
                "fp32",
                "the GPU does not compute in bf16, and such bases overflow in fp16",
            ),
            "ampere": ("bf16", "the GPU computes in bf16"),
        }[card]
    )
    named = configured(tiny_config, "fp16")
    with pytest.raises(ConfigError, match="overflow in fp16") as no:
        known_precision(named, None, CUDA, held_in_half=True, overflows=True)
    assert no.value.hint == "Set training.precision to fp32 or auto."
    # Which bases these are may be known better later: a run goes on as it began.
    known = known_precision(named, "fp16", CUDA, held_in_half=True, overflows=True)
    assert known == ("fp16", "as configured or recorded")


def test_what_overflows_where_it_is_measured_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "half_precision", lambda _: "fp16")
    monkeypatch.setattr(precisions, "WORTH_IT", 1e9)
    monkeypatch.setattr(precisions, "product_seconds", lambda *_: 0.0)
    model = torch.nn.Linear(4, 4)

    def loss(rows: Any) -> Any:
        return model(torch.full((len(rows), 4), 1e6)).float().abs().sum()

    assert faster_precision(model, loss, [[0], [0]], CPU) == ("fp32", "the base overflows in fp16")


# -- the optimizer -------------------------------------------------------------------------------


def test_one_kernel_steps_on_cuda_and_nothing_changes_elsewhere(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    save_file(
        {"w|step": torch.ones(()), "w|exp_avg": torch.zeros(2)}, tmp_path / "optimizer.safetensors"
    )
    for device, is_fused, where in ((CUDA, True, "meta"), (CPU, None, "cpu"), (MPS, None, "cpu")):
        optimizer = adamw([parameter], 0.1, 0.0, device)
        assert optimizer.defaults["fused"] is is_fused
        # Fused, the step count is where the parameter is.
        load_optimizer(optimizer, {"w": parameter}, "a", tmp_path)
        assert optimizer.state[parameter]["step"].device.type == where
