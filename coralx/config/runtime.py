"""The sections `training`, `runtime` and `budget`: how adapters are trained, on what, how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from coralx.config.section import Count, Name, Section, Size

Positive = Annotated[float, Field(gt=0.0, le=1e9)]
Place = Annotated[int, Field(ge=0, le=1 << 16)]
Megabytes = Annotated[int, Field(ge=0, le=1 << 30)]
Processes = Annotated[int, Field(ge=1, le=1_024)]


class Training(Section):
    """How an adapter is trained, where no gene says otherwise."""

    batch_size: Size = Field(default=16, description="Rows a step.")
    lr_schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear",
        description="How the learning rate falls over a genome's whole planned training.",
    )
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.06, description="The share of the whole planned training in which the rate rises."
    )
    weight_decay: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        default=0.0, description="AdamW's weight decay."
    )
    max_grad_norm: Annotated[float, Field(gt=0.0)] = Field(
        default=1.0, description="Gradients are clipped above this norm."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="auto: bf16, or fp16 on a GPU without bf16, for language models on a GPU; else "
        "fp32, or bf16 (fp16) where that is measured to be faster. fp16 on a CPU is slow.",
    )


class Runtime(Section):
    """On what a run trains, and what it keeps."""

    backend: Literal["auto", "unsloth", "peft", "simulated"] = Field(
        default="auto",
        description="What trains. auto: Unsloth where there is a GPU, it is installed, and it has "
        "fused kernels for the base; else PEFT.",
    )
    executor: Literal["auto", "in-process", "local"] = Field(
        default="auto",
        description="auto and local: worker processes. in-process: in the driver's own process, "
        "for debuggers.",
    )
    workers: Literal["auto"] | Processes = Field(
        default="auto",
        description="Worker processes in all. auto: `workers_per_gpu` on each GPU; on a CPU one a "
        "core, at most four, within what the machine or container has of cores and memory.",
    )
    workers_per_gpu: Literal["auto"] | Processes = Field(
        default=1,
        description="Worker processes on each GPU, where `workers` is auto. auto: as many as "
        "memory, cores and population allow, at most as many as `coralx doctor --gpu-check` found "
        "best, or 4.",
    )
    threads_per_worker: Literal["auto"] | Processes = Field(
        default="auto", description="CPU threads of each worker. auto: the cores, shared out."
    )
    devices: (
        Literal["auto"] | Annotated[tuple[Place, ...], Field(min_length=1, max_length=1_024)]
    ) = Field(
        default="auto", description="The GPUs to use, by number among the visible ones. auto: all."
    )
    pack: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        default="auto",
        description="Genomes that a worker trains in one pass, with PEFT; figures change in "
        "rounding alone. auto: as many as pay, as measured on a GPU, or on a CPU for batches of up "
        "to 4 rows.",
    )
    quantization: Literal["none", "4bit", "8bit"] = Field(
        default="none",
        description="Store a language model's base weights in 4 or 8 bits, with bitsandbytes: on "
        "CUDA GPUs, and with PEFT on CPUs.",
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        default="auto",
        description="Trade time for memory. auto: where a GPU's memory would not hold the largest "
        "genome of the search space without, by estimate.",
    )
    prefix_cache_mb: Megabytes | None = Field(
        default=None,
        description="MB in each worker's memory (the rest goes to a temporary file) for what the "
        "layers below the adapted ones make of a text. 0: nothing is kept. Unset: 256 on a CPU.",
    )
    block_compile: bool = Field(
        default=False,
        description="Have Unsloth compile the base's layers, which can be faster on a GPU and is "
        "compiled anew for each adapter. A resumed run then need not equal one that was never cut.",
    )
    keep_checkpoints: Literal["needed", "all"] = Field(
        default="needed",
        description="needed: those that can still be continued, inherited or handed over.",
    )
    checkpoint_minutes: Positive = Field(
        default=10.0, description="How often a stage that takes long keeps what it has trained."
    )
    heartbeat_minutes: Positive = Field(
        default=10.0,
        description="A worker silent for so long while it has a job counts as hung, and is "
        "replaced.",
    )
    baseline: bool = Field(
        default=False,
        description="Also train the default recipe, and the centre of the priors, to the end, "
        "counted apart, unless the search does.",
    )
    verify_front: bool = Field(
        default=False,
        description="Also train the front's members that started from the weights of others, or "
        "the sources of those derived of such, from scratch, counted apart.",
    )
    save_predictions: bool = Field(
        default=False,
        description="Keep each stage's scores of every validation row that it looks at.",
    )
    functions_from: Name | None = Field(
        default=None,
        description="The folder of your own functions, `module:function`. Unset: the config "
        "file's.",
    )

    @field_validator("devices", mode="after")
    @classmethod
    def _are_different_devices(cls, devices: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not isinstance(devices, str) and len(set(devices)) < len(devices):
            raise ValueError(
                "a GPU is listed twice; for several workers on one, set `workers_per_gpu`"
            )
        return devices

    @model_validator(mode="after")
    def _counts_workers_once(self) -> Runtime:
        if self.workers_per_gpu == 1:
            return self
        if self.workers != "auto":
            raise ValueError(
                f"`workers: {self.workers}` says how many workers there are in all, and "
                f"`workers_per_gpu: {self.workers_per_gpu}` how many each GPU has: set one of them"
            )
        if self.executor == "in-process":
            raise ValueError(
                "`workers_per_gpu` is for worker processes; with `executor: in-process` there are "
                "none"
            )
        return self

    @model_validator(mode="after")
    def _can_choose_devices(self) -> Runtime:
        if self.executor == "in-process" and self.devices != "auto":
            raise ValueError(
                "`devices` is for worker processes; with `executor: in-process`, set the "
                "environment variable CUDA_VISIBLE_DEVICES instead"
            )
        return self

    @model_validator(mode="after")
    def _can_pack(self) -> Runtime:
        if self.pack in ("auto", 1):
            return self
        if self.backend == "unsloth":  # in a simulation nothing is trained, packed or not
            raise ValueError(
                f"`pack: {self.pack}` needs PEFT, but `backend` is unsloth: leave out one of the "
                "two"
            )
        if self.executor == "in-process":
            raise ValueError(
                f"`pack: {self.pack}` needs worker processes: leave it out, or set "
                "`executor: local`"
            )
        return self

    @model_validator(mode="after")
    def _can_compile_blocks(self) -> Runtime:
        if not self.block_compile:
            return self
        if self.backend == "peft":
            raise ValueError(
                "`block_compile` is Unsloth's, but `backend` is peft: leave it out, or set "
                "`backend: unsloth`"
            )
        if self.executor == "in-process":
            raise ValueError(
                "`block_compile` is for worker processes: leave it out, or set `executor: local`"
            )
        return self


class Budget(Section):
    """Limits that end a run cleanly with its best so far; totals over all resumes."""

    max_minutes: Positive | None = Field(default=None, description="Minutes of wall time.")
    max_steps: Count | None = Field(default=None, description="Trained optimizer steps.")
    max_gpu_hours: Positive | None = Field(
        default=None,
        description="Hours of each CUDA GPU (or slice of one) in use. Without one it has no "
        "effect, and the run says so.",
    )
