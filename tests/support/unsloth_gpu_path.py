"""Train genomes by one backend in 16 bits on the CPU: `unsloth_gpu_path.py BACKEND FOLDER PART...`.

For unsloth the GPU is faked. FOLDER gets the base, the texts and checkpoints, and for each of PARTS
a BACKEND-PART.json with what was seen. One process for each backend: Unsloth changes transformers.
Interpreted kernels take time in proportion to the tokens, so texts are short and few.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.support import faked_gpu

BACKEND, FOLDER, CHOSEN = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
COMPILED = FOLDER / "-".join(["compiled", *CHOSEN])  # of each process its own
os.environ |= {"HF_HUB_OFFLINE": "1", **faked_gpu.environment(COMPILED)}
if BACKEND == "unsloth":
    faked_gpu.install()

import torch  # noqa: E402

from coralx.backends.protocol import Paused, create  # noqa: E402
from coralx.config import parse_config  # noqa: E402
from coralx.records.genomes import Genes, Genome  # noqa: E402
from coralx.records.jobs import Horizon, Job, MeasureJob  # noqa: E402
from coralx.tasks import causal_lm  # noqa: E402
from coralx.training import adapter_backend as adapting  # noqa: E402
from coralx.training import inference, loop  # noqa: E402
from coralx.training.adapters import ADAPTER  # noqa: E402
from coralx.training.precision import dtype_of  # noqa: E402
from coralx.training.tiny_model import write_model  # noqa: E402


def held_in(precision: str | None, _: Any, *, held_in_half: bool) -> torch.dtype:
    """As on a GPU; on a CPU, bases are held in float32."""
    return dtype_of(str(precision)) if held_in_half else torch.float32


faked_gpu.put(adapting, training_device=lambda: torch.device("cpu"), base_dtype=held_in)
if BACKEND == "unsloth":
    faked_gpu.put(adapting, check_quantization=lambda *_: None)  # it would refuse 4 bits on a CPU
    faked_gpu.put(causal_lm, needs_mask=lambda _: False)  # as on a GPU; PEFT's batches have one

gc.collect()
gc.freeze()  # Unsloth collects garbage often, and would walk through all that was imported

STEPS = 3
WHOLE = Genes(rank=4, learning_rate=2e-2, dropout=0.0, batch_size=2)
DROPPED = replace(WHOLE, dropout=0.5)
QKV = ("q_proj", "k_proj", "v_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
GENOMES = {
    "whole": WHOLE,
    "dropout": DROPPED,
    "rslora": replace(WHOLE, use_rslora=True),
    "dora": replace(WHOLE, use_dora=True),
    "qkv": replace(WHOLE, target_modules=QKV),
    "q+v": replace(WHOLE, target_modules=("q_proj", "v_proj")),
    "o": replace(WHOLE, target_modules=("o_proj",)),
    "mlp": replace(WHOLE, target_modules=MLP),
    "gate+up": replace(WHOLE, target_modules=("gate_proj", "up_proj")),
    "again": WHOLE,
}
TEXTS = (
    ("good film", "positive"), ("awful road", "negative"), ("coffee was great", "positive"),
    ("the team broken", "negative"), ("happy train", "positive"), ("sad phone", "negative"),
    ("love it", "positive"), ("hate it", "negative"), ("calm road", "positive"),
    ("dirty coffee", "negative"), ("lovely team", "positive"), ("worst film", "negative"),
)  # fmt: skip
ANSWERS = ("whole", "dora", "qkv", "mlp")
"""The genomes that learn the instructions by heart, so that no rounding changes their answers."""
LEARNT = 200
"""Steps until they do."""
FEW = ("whole", "q+v", "again")
"""One that the fused kernels train, one that they do not, and the first once more."""


def write_material() -> None:
    """The bases and the data, for both backends."""
    write_model(FOLDER / "model")
    described = json.loads((FOLDER / "model" / "config.json").read_text())
    described["max_position_embeddings"] = 1024  # Unsloth offloads no activations below 512
    (FOLDER / "model" / "config.json").write_text(json.dumps(described))
    (FOLDER / "model" / "chat_template.jinja").unlink()  # prompts are shorter without
    write_granite(FOLDER / "model", FOLDER / "granite")
    write_lines("texts", ({"text": text, "label": label} for text, label in TEXTS))
    # Prompts of several lengths, so that some are padded on the left, and answers to each.
    asked = [
        {"prompt": text, "completion": " ".join(["", label, *reversed(text.split())])}
        for text, label in TEXTS
    ]
    write_lines("instructions", asked[:8])
    write_lines("others", asked[8:10])
    write_lines("prompts", ({"text": row["prompt"]} for row in asked[:8]))


def write_lines(name: str, rows: Any) -> None:
    (FOLDER / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


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


def config_for(
    task: str,
    model: str = "model",
    *,
    length: int = 24,
    answers: int = 0,
    precision: str = "bf16",
    **runtime: Any,
) -> Any:
    """A config whose sft gives so many tokens of answer to each of the prompts."""
    stages = [
        {"name": f"S{n}", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 0.5}
        for n in range(2)
    ]
    data: dict[str, Any] = {}
    if task == "sft":
        data["train"] = str(FOLDER / "instructions.jsonl")
        data["validation"] = data["test"] = str(FOLDER / "others.jsonl")
        if answers:
            file = str(FOLDER / "prompts.jsonl")
            data["attacks"] = {"file": file, "judge": "refusal", "max_new_tokens": answers}
    else:
        data |= {"train": str(FOLDER / "texts.jsonl"), "labels": ["negative", "positive"]}
        data |= {"validation_fraction": 0.25, "test_fraction": 0.25}
    if task == "label-tokens":
        data["prompt"] = "{text} :"
    raw = {
        "experiment": {"name": "path", "seed": 7},
        "model": {"base": str(FOLDER / model), "task": task, "max_length": length},
        "data": data,
        "search_space": {"target_modules": {"choices": ["all-linear"]}},
        "evolution": {"population_size": 4, "generations": 2},
        "hyperband_config": {"training_stages": [{**stage, "stop_when": []} for stage in stages]},
        "training": {"batch_size": 2, "precision": precision},
        "runtime": {"workers": 1, "threads_per_worker": 1, **runtime},
    }
    if task == "sft":
        raw["objectives"] = [{"metric": "eval_loss"}, {"metric": "trainable_parameters"}]
    return parse_config(raw, "path")


CALLS: Counter[str] = Counter()
"""How often the forward pass of each of Unsloth's fused LoRA functions ran."""
SHORTAGES: list[int] = []
"""At which of a training's calls of the fused MLP memory runs out."""


def count_calls() -> None:
    from unsloth.kernels import fast_lora

    def counted(name: str, forward: Callable[..., Any]) -> Any:
        def called(*args: Any) -> Any:
            CALLS[name] += 1
            if name == "mlp" and SHORTAGES and CALLS[name] == SHORTAGES[0]:
                SHORTAGES.pop(0)
                raise torch.OutOfMemoryError("CUDA out of memory, on purpose")
            return forward(*args)

        return staticmethod(called)

    for name, function in (
        ("qkv", fast_lora.LoRA_QKV),
        ("o", fast_lora.LoRA_W),
        ("mlp", fast_lora.LoRA_MLP),
    ):
        faked_gpu.put(function, forward=counted(name, function.forward))


TRACES: list[dict[str, Any]] = []


def watch_training() -> None:
    """Keep what every training of steps came to, whatever else it is given."""
    run = loop.Trainer.run
    signature = inspect.signature(run)

    def watched(*args: Any, **kwargs: Any) -> Any:
        trace = signature.bind(*args, **kwargs).arguments["trace"]
        CALLS.clear()
        try:
            return run(*args, **kwargs)
        finally:
            TRACES.append({**asdict(trace), "calls": dict(CALLS)})

    faked_gpu.put(loop.Trainer, run=watched)


def silent(_: Any) -> None:
    pass


def prepared(config: Any, *, tries: bool = False) -> Any:
    """A backend that can train; `tries` a batch before, as a run's first worker does."""
    backend = create(BACKEND)
    # On a CPU PEFT's layers are replaced, and draw dropout otherwise than on the GPU that is meant.
    backend.has_cpu_layers = False
    known = None if tries else config.training.precision
    backend.remarks = backend.prepare(config, known, 1, silent).warnings
    return backend


def trained(
    backend: Any,
    name: str,
    genes: Genes,
    steps: int = STEPS,
    beat: Callable[[], None] = lambda: None,
    **job: Any,
) -> dict[str, Any]:
    """What was seen of a genome's training, of its figures and answers."""
    folder = FOLDER / BACKEND / name
    told = {
        "checkpoint": str(folder / "adapter"),
        "partial": str(folder / "partial"),
        "predictions": str(folder / "rows.safetensors"),
    }
    wanted = Job(
        Genome("g00-00-aaaa", 0, genes), "S0", 0, steps, Horizon(steps, 0), 1.0, **{**told, **job}
    )
    result = backend.train(wanted, silent, beat)
    return {
        **TRACES.pop(),
        "metrics": result.metrics,
        "notes": result.notes,
        "adapter": sha256((folder / "adapter" / ADAPTER).read_bytes()).hexdigest(),
        "answers": answers_in(folder / "rows.answers.jsonl"),
    }


def answers_in(path: Path) -> dict[str, str]:
    """Answers by their prompt; none where none were given."""
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {row["prompt"]: row["answer"] for row in rows}


def answers_of(backend: Any, name: str) -> dict[str, str]:
    """What an adapter of PEFT's answers, which has learnt by heart."""
    genome = Genome("g00-00-aaaa", 0, GENOMES[name])
    kept = FOLDER / BACKEND / f"answers of {name}" / "rows.safetensors"
    theirs = str(FOLDER / "peft" / f"learnt {name}" / "adapter")
    backend.measure(MeasureJob(genome, theirs, validation={}, scores=str(kept)))
    return answers_in(kept.with_suffix(".answers.jsonl"))


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


def kinds() -> dict[str, Any]:
    """Every kind of adapter, a base without fused kernels, and what another backend trained."""
    seen: dict[str, Any] = {}
    backend = prepared(config_for("label-tokens", gradient_checkpointing=False), tries=True)
    if BACKEND == "unsloth":
        seen["kernels"] = kernels_in(backend)
    seen["untuned"] = backend.measure(MeasureJob(None, None)).validation
    for name, genes in GENOMES.items():
        seen[name] = trained(backend, name, genes)
    # PEFT's own, if PEFT ran before.
    theirs = MeasureJob(Genome("g00-00-aaaa", 0, WHOLE), str(FOLDER / "peft" / "whole" / "adapter"))
    seen["theirs"] = backend.measure(theirs).validation
    other = prepared(config_for("label-tokens", "granite", gradient_checkpointing=False))
    seen["granite"] = {**trained(other, "granite", GENOMES["q+v"]), "remarks": other.remarks}
    return seen


def tuning() -> dict[str, Any]:
    """sft with judged answers, and whether training goes on as before after them."""
    backend = prepared(config_for("sft", answers=5, gradient_checkpointing=False))
    seen: dict[str, Any] = {"checkpoint": torch.utils.checkpoint.CheckpointFunction.__name__}
    for name in ("whole", "dropout", "qkv", "mlp"):
        seen[name] = trained(backend, f"sft {name}", GENOMES[name])
    if BACKEND == "peft":
        for name in ANSWERS:
            trained(backend, f"learnt {name}", GENOMES[name], LEARNT)
    seen["learnt"] = {name: answers_of(backend, name) for name in ANSWERS}
    together = inference.ANSWER_TOKENS
    faked_gpu.put(inference, ANSWER_TOKENS=1)  # one prompt at a time: decoding has a way of its own
    seen["alone"] = answers_of(backend, "qkv")
    faked_gpu.put(inference, ANSWER_TOKENS=together)
    seen["again"] = trained(backend, "sft again", GENOMES["whole"])
    return seen


def pool_bytes() -> int:
    """What Unsloth holds for layer inputs that it moves to the host."""
    if BACKEND != "unsloth":
        return 0
    from unsloth_zoo import gradient_checkpointing

    return sum(buffer.untyped_storage().nbytes() for buffer in gradient_checkpointing.CPU_BUFFERS)


def recomputing() -> dict[str, Any]:
    """sft with checkpointed gradients, left in the middle and taken up, and short of memory."""
    backend = prepared(config_for("sft", length=512, gradient_checkpointing=True))
    seen: dict[str, Any] = {"checkpoint": torch.utils.checkpoint.CheckpointFunction.__name__}
    pools = [pool_bytes()]
    seen["dropout"] = trained(backend, "uncut", DROPPED)
    pools.append(pool_bytes())
    seen["pools"] = pools
    signs = iter([False, True])

    def beat() -> None:
        if next(signs, False):
            raise Paused

    with suppress(Paused):
        trained(backend, "cut", DROPPED, beat=beat)
    seen["left after"] = len(TRACES.pop()["losses"])
    seen["taken up"] = trained(backend, "cut", DROPPED)
    seen["halves"] = trained(backend, "halves", WHOLE, is_scored=False, micro_batch=1)
    # A step goes through two layers, and in backward through the same again.
    for name, call in (("short in forward", 2), ("short in recompute", 3)):
        SHORTAGES[:] = [call]
        seen[name] = trained(backend, name, WHOLE, is_scored=False)
        seen[f"{name}, not met"] = list(SHORTAGES)
    return seen


def quantized() -> dict[str, Any]:
    """A base in 4 bits."""
    config = config_for("sft", answers=5, gradient_checkpointing=False, quantization="4bit")
    backend = prepared(config)
    return {name: trained(backend, f"4bit {name}", GENOMES[name]) for name in FEW}


def halves() -> dict[str, Any]:
    """A base in float16, losses scaled: the first few steps may be skipped until the scale fits."""
    backend = prepared(config_for("sft", precision="fp16", gradient_checkpointing=False))
    return {name: trained(backend, f"fp16 {name}", GENOMES[name], 6) for name in FEW[:2]}


def classes() -> dict[str, Any]:
    """A classifier made of a language model."""
    backend = prepared(config_for("sequence-classification", gradient_checkpointing=False))
    head = backend._base.model.score.original_module.weight
    seen: dict[str, Any] = {"head": [str(head.dtype), head.float().tolist()]}
    if BACKEND == "unsloth":
        seen["kernels"] = kernels_in(backend)
    seen["untuned"] = backend.measure(MeasureJob(None, None)).validation
    for name in FEW:
        seen[name] = trained(backend, f"classes {name}", GENOMES[name])
    theirs = str(FOLDER / "peft" / "classes whole" / "adapter")
    measured = backend.measure(MeasureJob(Genome("g00-00-aaaa", 0, WHOLE), theirs))
    seen["theirs"] = measured.validation
    return seen


PARTS = {
    "kinds": kinds,
    "tuning": tuning,
    "recomputing": recomputing,
    "quantized": quantized,
    "halves": halves,
    "classes": classes,
}


def main() -> None:
    """Write what was seen."""
    if not (FOLDER / "model").exists():
        write_material()
    watch_training()
    if BACKEND == "unsloth":
        count_calls()
    for part in CHOSEN:
        seen = PARTS[part]()
        (FOLDER / f"{BACKEND}-{part}.json").write_text(json.dumps(seen, indent=1))


main()
