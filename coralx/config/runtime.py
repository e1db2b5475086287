"""How genomes are trained, on what, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from coralx.config.section import Count, Name, Section, Size

Positive = Annotated[float, Field(gt=0.0, le=1e9)]
Place = Annotated[int, Field(ge=0, le=1 << 16)]
Processes = Annotated[int, Field(ge=1, le=1_024)]


class Training(Section):
    """`warmup_ratio` is a share of the horizon; precision `auto` measures bf16 autocast."""

    batch_size: Size = 16
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.06
    weight_decay: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Runtime(Section):
    """`auto` workers: one a GPU; on a CPU one a core, at most four, if memory allows.

    `quantization` stores a language model's weights in 4 or 8 bits (bitsandbytes, CUDA).
    `gradient_checkpointing` trades time for memory; auto: for language models on a GPU.
    `executor: in-process` trains in the driver's own process, for debuggers. `baseline` trains the
    default recipe to the end beside the search, counted apart; `verify_front` likewise those of the
    front that started from the weights of others, from scratch. `devices`: the GPUs to use, by
    number within the visible ones. A stage that takes long keeps what it has trained every
    `checkpoint_minutes`; a worker that is silent for `heartbeat_minutes` while it has a job is
    taken for hung, and replaced. `save_predictions` keeps what each stage's adapter says about
    every validation row that it is judged by. `functions_from` is where functions of the user's,
    `module:function`, are looked for: the config file's folder, filled in when the file is read.
    """

    backend: Literal["auto", "unsloth", "peft", "simulated"] = "auto"
    executor: Literal["auto", "in-process", "local"] = "auto"
    workers: Literal["auto"] | Processes = "auto"
    threads_per_worker: Literal["auto"] | Processes = "auto"
    devices: (
        Literal["auto"] | Annotated[tuple[Place, ...], Field(min_length=1, max_length=1_024)]
    ) = "auto"
    quantization: Literal["none", "4bit", "8bit"] = "none"
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    keep_checkpoints: Literal["needed", "all"] = "needed"
    checkpoint_minutes: Positive = 10.0
    heartbeat_minutes: Positive = 10.0
    baseline: bool = False
    verify_front: bool = False
    save_predictions: bool = False
    functions_from: Name | None = None

    @field_validator("devices", mode="after")
    @classmethod
    def _are_different_devices(cls, devices: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not isinstance(devices, str) and len(set(devices)) < len(devices):
            raise ValueError("each GPU is listed once; `workers` says how many share them")
        return devices

    @model_validator(mode="after")
    def _can_choose_devices(self) -> Runtime:
        if self.executor == "in-process" and self.devices != "auto":
            raise ValueError(
                "`devices` is for worker processes; with `executor: in-process` set "
                "CUDA_VISIBLE_DEVICES"
            )
        return self


class Budget(Section):
    """Limits that end a run cleanly with its best so far; totals over all resumes.

    `max_minutes` are minutes of wall time, `max_gpu_hours` hours of each GPU in use, `max_steps`
    trained optimizer steps.
    """

    max_minutes: Positive | None = None
    max_steps: Count | None = None
    max_gpu_hours: Positive | None = None
