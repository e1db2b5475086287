"""Train genomes by one backend in bf16 on the CPU: `unsloth_gpu_path.py BACKEND FOLDER [ONLY...]`.

For unsloth, CUDA is faked before Unsloth is imported, so that it installs its fused kernels; Triton
interprets them, and every tensor lives on the CPU. FOLDER gets the base, the texts, checkpoints,
and BACKEND.json with what was seen. One process for each backend: Unsloth changes transformers.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BACKEND, FOLDER = sys.argv[1], Path(sys.argv[2])
ONLY = sys.argv[3:]

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRITON_INTERPRET": "1",
    "UNSLOTH_ALLOW_CPU": "1",  # leave TRL's trainers alone
    "UNSLOTH_COMPILE_DISABLE": "1",
    "UNSLOTH_COMPILE_LOCATION": str(FOLDER / "unsloth"),
    "UNSLOTH_DISABLE_DOUBLE_BUFFER": "1",  # needs CUDA's events
    "UNSLOTH_DISABLE_PINNED_MEMORY": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_RMSNORM_MULTIROW": "0",  # checks itself bit by bit, which the interpreter fails
}

import torch  # noqa: E402
import torch.utils.checkpoint  # noqa: E402
from torch.utils._device import _device_constructors  # noqa: E402

STEPS = 4
GIB = 1 << 30


def fake_gpu() -> None:
    """Answer what Unsloth asks about the GPU with an A100's figures."""
    properties = SimpleNamespace(
        name="Faked", major=8, minor=0, total_memory=80 * GIB, multi_processor_count=108
    )
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (8, 0),
        "get_device_name": properties.name,
        "get_device_properties": properties,
        "mem_get_info": (80 * GIB, 80 * GIB),
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_reserved": 0,
        "synchronize": None,
        "empty_cache": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True  # noqa: ARG005
    torch._C._cuda_getCurrentRawStream = lambda index=0: 0  # noqa: ARG005
    # As root, Unsloth would run ldconfig to find the CUDA libraries that are missing here.
    os.geteuid = lambda: 1000


def stay_on_cpu() -> None:
    """Turn what Unsloth makes or casts on the GPU to the CPU."""

    def on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            is_gpu = isinstance(device, int) or str(device).startswith("cuda")
            return make(*args, device="cpu" if is_gpu else device, **kwargs)

        return made

    _device_constructors()  # remembers the originals, for `with torch.device(...)`
    for name in ("empty", "zeros", "ones", "full", "tensor", "arange"):
        setattr(torch, name, on_cpu(getattr(torch, name)))
    for name in ("custom_fwd", "custom_bwd"):  # backward runs under forward's autocast
        given = getattr(torch.amp, name)
        setattr(torch.amp, name, lambda *args, given=given, **_: given(*args, device_type="cpu"))


def mend_interpreter() -> None:
    """Triton's interpreter holds bf16 as 16-bit integers and, up to 3.9 at least, adds and
    multiplies those. Compute in float32 and round, as the hardware does."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def widened(given: Any) -> Any:
        if not isinstance(given, TensorHandle) or given.dtype.scalar != tl.bfloat16:
            return given
        return TensorHandle((given.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def rounded(given: Any) -> Any:
        numbers = torch.from_numpy(np.ascontiguousarray(given.data)).to(torch.bfloat16)
        bits = numbers.view(torch.int16).numpy().view(np.uint16)
        return TensorHandle(bits.reshape(given.data.shape), tl.bfloat16)

    def mended(compute: Callable[..., Any]) -> Callable[..., Any]:
        def computed(self: Any, *args: Any) -> Any:
            wide = [widened(arg) for arg in args]
            found = compute(self, *wide)
            is_bf16 = any(a is not w for a, w in zip(args, wide, strict=True))
            return rounded(found) if is_bf16 and found.data.dtype == np.float32 else found

        return computed

    for name in ("binary_op", "unary_op", "ternary_op", "create_fma"):
        setattr(InterpreterBuilder, name, mended(getattr(InterpreterBuilder, name)))
    cast = InterpreterBuilder.cast_impl

    def cast_impl(self: Any, given: Any, kind: Any) -> Any:
        wide = widened(given)
        if kind.scalar == tl.bfloat16:
            return given if wide is not given else rounded(cast(self, given, tl.float32))
        return wide if wide is not given and kind.scalar == tl.float32 else cast(self, wide, kind)

    InterpreterBuilder.cast_impl = cast_impl


def believe_in_gpu() -> None:
    """Let our backend and Unsloth take the GPU's path with a base on the CPU."""
    from unsloth.models import llama

    import coralx.training.unsloth as ours

    load, from_pretrained = ours.UnslothBackend.load, ours.FastLanguageModel.from_pretrained

    def load_as_on_gpu(self: Any, config: Any, labels: Any, _: Any, *rest: Any) -> Any:
        return load(self, config, labels, SimpleNamespace(type="cuda", index=0), *rest)

    ours.UnslothBackend.load = load_as_on_gpu
    ours.FastLanguageModel.from_pretrained = lambda **kwargs: from_pretrained(
        **{**kwargs, "device_map": {"": "cpu"}}
    )

    def build_rope(self: Any, index: int) -> None:  # the original asks for torch.device(index)
        size = self.current_rope_size
        self._set_cos_sin_cache(
            self._rope_cache_rows(), torch.device("cpu", index), self._rope_cache_dtype
        )
        self.current_rope_size = size
        self._rope_cache_versions[index] = self._rope_cache_version

    llama._PerDeviceRopeCache._build_rope_cache = build_rope


if BACKEND == "unsloth":
    fake_gpu()
    stay_on_cpu()
    mend_interpreter()
    believe_in_gpu()

from coralx.backends.protocol import create  # noqa: E402
from coralx.config import parse_config  # noqa: E402
from coralx.records.genomes import Genes, Genome  # noqa: E402
from coralx.records.jobs import Horizon, Job, MeasureJob  # noqa: E402
from coralx.training import adapter_backend as adapting  # noqa: E402
from coralx.training import loop  # noqa: E402
from coralx.training.tiny_model import write_model, write_texts  # noqa: E402

adapting._device = lambda: torch.device("cpu")
adapting.base_dtype = lambda *_: torch.bfloat16  # as on a GPU; the CPU's would be float32

WHOLE = Genes(rank=4, learning_rate=2e-2, dropout=0.0, batch_size=2)
GENOMES = {
    "whole": WHOLE,
    "dropout": replace(WHOLE, dropout=0.5),
    "rslora": replace(WHOLE, use_rslora=True),
    "dora": replace(WHOLE, use_dora=True),
    "qkv": replace(WHOLE, target_modules=("q_proj", "k_proj", "v_proj")),
    "q+v": replace(WHOLE, target_modules=("q_proj", "v_proj")),
    "o": replace(WHOLE, target_modules=("o_proj",)),
    "mlp": replace(WHOLE, target_modules=("gate_proj", "up_proj", "down_proj")),
    "gate+up": replace(WHOLE, target_modules=("gate_proj", "up_proj")),
    "again": WHOLE,
}


def write_granite(like: Path, folder: Path) -> None:
    """A Granite, which Unsloth has no fused kernels for, with the tokenizer of another model."""
    from transformers import AutoTokenizer, GraniteConfig, GraniteForCausalLM

    given = json.loads((like / "config.json").read_text())
    names = inspect.signature(GraniteConfig).parameters.keys() & given.keys()
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    torch.manual_seed(0)
    GraniteForCausalLM(GraniteConfig(**{name: given[name] for name in names})).save_pretrained(
        folder
    )


def config_for(task: str, model: str = "model", **runtime: Any) -> Any:
    stages = [
        {"name": f"S{n}", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 0.5}
        for n in range(2)
    ]
    data: dict[str, Any] = {"validation_fraction": 0.3, "test_fraction": 0.3}
    if task == "sft":
        data["train"] = str(FOLDER / "instructions.jsonl")
    else:
        data |= {
            "train": str(FOLDER / "texts.jsonl"),
            "labels": ["negative", "positive"],
            "prompt": "Text : {text}\nLabel :",
        }
    raw = {
        "experiment": {"name": "path", "seed": 7},
        "model": {"base": str(FOLDER / model), "task": task, "max_length": 24},
        "data": data,
        "search_space": {"target_modules": {"choices": ["all-linear"]}},
        "evolution": {"population_size": 4, "generations": 2},
        "hyperband_config": {"training_stages": [{**stage, "stop_when": []} for stage in stages]},
        "training": {"batch_size": 2, "precision": "bf16"},
        "runtime": {"workers": 1, "threads_per_worker": 1, **runtime},
    }
    if task == "sft":
        raw["objectives"] = [{"metric": "eval_loss"}, {"metric": "trainable_parameters"}]
    return parse_config(raw, "path")


CALLS: Counter[str] = Counter()
"""How often the forward pass of each of Unsloth's fused LoRA functions ran."""


def count_calls() -> None:
    from unsloth.kernels import fast_lora

    def counted(name: str, forward: Callable[..., Any]) -> Any:
        def called(*args: Any) -> Any:
            CALLS[name] += 1
            return forward(*args)

        return staticmethod(called)

    for name, function in (
        ("qkv", fast_lora.LoRA_QKV),
        ("o", fast_lora.LoRA_W),
        ("mlp", fast_lora.LoRA_MLP),
    ):
        function.forward = counted(name, function.forward)


TRACES: list[dict[str, Any]] = []


def watch_training() -> None:
    run = loop.Trainer.run

    def watched(self: Any, job: Job, report: Any) -> Any:
        CALLS.clear()
        trace = run(self, job, report)
        TRACES.append({"losses": trace.losses, "norms": trace.norms, "calls": dict(CALLS)})
        return trace

    loop.Trainer.run = watched


def prepared(config: Any) -> tuple[Any, tuple[str, ...]]:
    """A backend that can train, and what it remarked on."""
    backend = create(BACKEND)
    return backend, backend.prepare(config, None, 1, lambda said: None).warnings  # noqa: ARG005


def trained(backend: Any, name: str, genes: Genes) -> dict[str, Any]:
    genome = Genome("g00-00-aaaa", 0, genes)
    path = FOLDER / BACKEND / name
    job = Job(genome, "S0", 0, STEPS, Horizon(STEPS, 0), 1.0, str(path))
    result = backend.train(job, lambda said: None)  # noqa: ARG005
    return {**TRACES.pop(), "metrics": result.metrics, "notes": result.notes}


def kernels_in(backend: Any) -> dict[str, int]:
    """On how many layers Unsloth installed its fused LoRA functions."""
    from unsloth.kernels import fast_lora

    layers = backend._model.base_model.model.model.layers
    return {
        "layers": len(layers),
        "qkv": sum(
            getattr(layer.self_attn, "apply_qkv", None) is fast_lora.apply_lora_qkv
            for layer in layers
        ),
        "o": sum(
            getattr(layer.self_attn, "apply_o", None) is fast_lora.apply_lora_o for layer in layers
        ),
        "mlp": sum(
            getattr(layer.mlp.forward, "__func__", None) is fast_lora.apply_lora_mlp_swiglu
            for layer in layers
        ),
    }


def main() -> None:
    """Write what was seen."""
    if not (FOLDER / "model").exists():
        write_model(FOLDER / "model")
        described = json.loads((FOLDER / "model" / "config.json").read_text())
        described["max_position_embeddings"] = 512  # below that, Unsloth offloads no activations
        (FOLDER / "model" / "config.json").write_text(json.dumps(described))
        write_granite(FOLDER / "model", FOLDER / "granite")
        write_texts(FOLDER / "texts.jsonl")
        rows = [json.loads(line) for line in (FOLDER / "texts.jsonl").read_text().splitlines()[:24]]
        (FOLDER / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
        asked = [
            {"prompt": f"Text : {row['text']} Label :", "completion": f" {row['label']} ."}
            for row in rows
        ]
        (FOLDER / "instructions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    watch_training()
    if BACKEND == "unsloth":
        count_calls()
    seen: dict[str, Any] = {}
    backend, _ = prepared(config_for("label-tokens", gradient_checkpointing=False))
    if BACKEND == "unsloth":
        seen["kernels"] = kernels_in(backend)
    seen["untuned"] = backend.measure(MeasureJob(None, None)).validation
    seen["genomes"] = {
        name: trained(backend, name, genes)
        for name, genes in GENOMES.items()
        if not ONLY or name in ONLY
    }
    with suppress(FileNotFoundError):  # PEFT runs first: only Unsloth finds the other's
        theirs = MeasureJob(Genome("g00-00-aaaa", 0, WHOLE), str(FOLDER / "peft" / "whole"))
        seen["theirs"] = backend.measure(theirs).validation
    seen["tuned"] = {}
    seen["checkpoint"] = {}
    for name, dropout, recomputes in (
        ("sft", 0.0, False),
        ("sft with dropout", 0.5, False),
        ("sft with dropout, checkpointed", 0.5, True),
    ):
        if ONLY and name not in ONLY:
            continue
        tuning, _ = prepared(config_for("sft", gradient_checkpointing=recomputes))
        seen["checkpoint"][name] = torch.utils.checkpoint.CheckpointFunction.__name__
        seen["tuned"][name] = trained(tuning, name, replace(WHOLE, dropout=dropout))
    other, remarks = prepared(config_for("label-tokens", "granite", gradient_checkpointing=False))
    seen["granite"] = {**trained(other, "granite", GENOMES["q+v"]), "remarks": remarks}
    (FOLDER / f"{BACKEND}.json").write_text(json.dumps(seen, indent=1))


main()
