"""Genomes trained alone and in packs, on a GPU: tokens a second and memory.

    python benchmarks/gpu.py                      # SmolLM2-135M and a 1B Llama, from the hub
    python benchmarks/gpu.py --bases BASE ...     # other bases: a folder, a hub id or builtin:NAME
    python benchmarks/gpu.py --smoke              # a tiny model on the CPU, in under a minute

Trains by Unsloth, by PEFT, and by PEFT in packs of 2, 4, 8 and 16, each at batches of 1, 2, 4 and 8
rows, and prints a table in Markdown. Every backend and base has a process of its own. Needs CoralX
with its extras `quickstart` and, for Unsloth's rows, `unsloth`.

UNCHECKED: its authors had no GPU. They ran `--smoke` alone, whose figures are a CPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BASES = ("builtin:smollm2", "unsloth/Llama-3.2-1B")
BATCHES, PACKS = (1, 2, 4, 8), (1, 2, 4, 8, 16)
STEPS = 30
"""Of each genome and setting; as many warm up before the first."""
HEADER = ("base", "backend", "batch", "genomes together", "tokens/s", "against PEFT alone", "GiB")


def config_of(base: str, smoke: bool) -> dict[str, Any]:
    """Sentiment of tweets by label words, of at most 96 tokens with their prompt."""
    config: dict[str, Any] = {
        "model": {"base": base, "task": "label-tokens", "max_length": 96},
        "data": {
            "train": "builtin:tweets",
            "text": "text",
            "label": "sentiment",
            "labels": ["negative", "positive"],
            "prompt": "Tweet: {text}\nSentiment:",
            "limit": 2000,
            "validation_fraction": 0.01,
            "test_fraction": 0.01,
        },
        "search_space": {"target_modules": {"choices": ["all-linear"]}},
    }
    if smoke:
        config["model"]["max_length"] = 48
        config["data"] |= {
            "train": str(Path(base).parent / "texts.jsonl"),
            "label": "label",
            "prompt": "Text : {text}\nLabel :",
            "limit": None,
            "validation_fraction": 0.2,
            "test_fraction": 0.2,
        }
    return config


def measure(backend_name: str, base: str, smoke: bool) -> Iterator[dict[str, Any]]:
    """Each setting of a backend on a base; what fails says why."""
    from coralx.backends.protocol import create  # first of all, as Unsloth changes other packages

    backend: Any = create(backend_name)
    import torch

    from coralx.config import parse_config

    config = parse_config(config_of(base, smoke), "benchmark")
    backend.prepare(config, None, os.cpu_count() or 1, lambda text: print(text, file=sys.stderr))
    steps = 2 if smoke else STEPS
    train(backend, 1, 1, steps)
    packs = PACKS if backend_name == "peft" else (1,)
    for batch in BATCHES[:1] if smoke else BATCHES:
        for pack in packs[:3] if smoke else packs:
            on_gpu = torch.cuda.is_available()
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            figures: dict[str, Any] = {"backend": backend_name, "batch": batch, "pack": pack}
            try:
                tokens, seconds = train(backend, batch, pack, steps)
            except Exception as error:  # one that does not fit is a finding, too
                figures["error"] = str(error).splitlines()[0] if str(error) else repr(error)
            else:
                figures |= {"tokens": tokens, "seconds": seconds}
                figures["bytes"] = torch.cuda.max_memory_allocated() if on_gpu else None
            yield figures


def train(backend: Any, batch: int, pack: int, steps: int) -> tuple[int, float]:
    """Tokens read and seconds taken by so many genomes together."""
    from coralx.records.genomes import Genes, Genome
    from coralx.records.jobs import Horizon, Job

    jobs = [
        Job(
            Genome(f"bench-{number}", 0, Genes(rank=8, batch_size=batch)),
            "bench",
            0,
            steps,
            Horizon(steps, 0),
            1.0,
            None,
            is_scored=False,
        )
        for number in range(pack)
    ]
    if pack == 1:
        results = [backend.train(jobs[0], lambda _: None)]
    else:
        results = list(backend.train_pack(jobs, lambda _: None))
    # The seconds of a pack are shared out among its genomes.
    tokens = sum(result.trained_tokens for result in results)
    return tokens, sum(result.train_seconds for result in results)


def rows(base: str, seen: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The table's rows of one base."""
    alone = {f["batch"]: f for f in seen if (f["backend"], f["pack"]) == ("peft", 1)}
    for figures in seen:
        cells = [Path(base).name, *(str(figures[key]) for key in ("backend", "batch", "pack"))]
        if "error" in figures:
            yield [*cells, f"failed: {figures['error']}", "", ""]
            continue
        speed = figures["tokens"] / figures["seconds"]
        peft = alone.get(figures["batch"], {})
        against = f"{speed * peft['seconds'] / peft['tokens']:.2f}x" if "tokens" in peft else ""
        held = f"{figures['bytes'] / 2**30:.1f}" if figures["bytes"] else ""
        yield [*cells, f"{speed:,.0f}", against, held]


def main() -> None:
    """The table, or with `--measure` the figures of one backend and base."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bases", nargs="+", default=BASES)
    parser.add_argument("--smoke", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--measure", nargs=2, metavar=("BACKEND", "BASE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        backend, base = given.measure
        for figures in measure(backend, base, given.smoke):
            print(json.dumps(figures), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        bases = given.bases
        if given.smoke:
            subprocess.run([sys.executable, "-m", "coralx.training.tiny_model", folder], check=True)
            bases = [f"{folder}/model"]
        report(bases, given.smoke)


def report(bases: list[str], smoke: bool) -> None:
    """Measure and print."""
    print(f"python {' '.join(sys.argv)} on {described()}\n")
    print("| " + " | ".join(HEADER) + " |")
    print("|" + " --- |" * len(HEADER), flush=True)
    for base in bases:
        seen: list[dict[str, Any]] = []
        for backend in ("peft",) if smoke else ("unsloth", "peft"):
            command = [sys.executable, __file__, "--measure", backend, base]
            found = subprocess.run(
                [*command, *(["--smoke"] if smoke else [])],
                env={**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if smoke else {})},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
            seen += map(json.loads, lines)
            if found.returncode:
                print(f"{backend} failed on {base}; see above", file=sys.stderr)
        for cells in rows(base, seen):
            print("| " + " | ".join(cells) + " |", flush=True)


def described() -> str:
    """The machine, in words."""
    from coralx.system.gpus import visible_gpus

    gpus = ", ".join(gpu.name for gpu in visible_gpus()) or "no GPU"
    return f"{gpus}; {platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
