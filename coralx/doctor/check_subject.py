"""What `--gpu-check` trains: the check's own texts and the config's, on the config's base or on a
small random one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coralx.backends.choice import choose
from coralx.config import Config, parse_config
from coralx.config.metric_catalogue import CAUSAL
from coralx.data.specimen import write_long_texts, write_prompts, write_texts
from coralx.errors import WorkerError
from coralx.system.python_process import module_command

SHORT_LENGTH = 64
"""Tokens of a short text, at most."""

ROWS = 512
"""Of the config's own data: a check of minutes reads no more."""


@dataclass(frozen=True)
class Scale:
    """How much a check trains."""

    steps: int = 12
    """Of each genome."""
    length: int = 512
    """Tokens of a long text. Below so many Unsloth offloads no activations."""
    batch_size: int = 8
    """Rows of long texts a step: the inputs of a layer of width 512 then take 4 MiB, and from 2 MiB
    on they are offloaded."""
    workers: tuple[int, ...] = (1, 2, 4)
    """How many are tried on one card."""
    seconds: float = 570.0
    """Of the whole check, at most."""
    large: bool = True
    """Whether the small random base is large enough for a GPU."""


@dataclass(frozen=True)
class Subject:
    """The configs that a check trains; each names one base and one worker."""

    base: str
    """As it may be published: without a folder's name."""
    label_tokens: Config
    """The check's short texts."""
    sft: Config
    """The check's long texts, and prompts to answer."""
    own: Config
    """What speed is measured on: the config's own task and data, or else the long texts."""
    backend: str
    """Which trains `own`."""


def subject_of(config: Config | None, folder: Path, scale: Scale, *, one_gpu: bool) -> Subject:
    """The configs for a check of `config`'s base, or without one of a small random base; what they
    read beside the config's data is written into `folder`.

    Raises ConfigError or SetupError where nothing can train the config, WorkerError where the small
    base cannot be written.
    """
    write_texts(folder / "texts.jsonl")
    write_long_texts(folder / "long.jsonl")
    write_prompts(folder / "prompts.jsonl")
    if config is not None and config.model.task in CAUSAL:
        specimen, base = config, _published(config)
    else:
        specimen, base = specimen_config(folder, large=scale.large), "a small random one"
        base += " (speed: " + _published(config) + ")" if config else " (with CONFIG: its own)"
    label_tokens, sft = _on_texts(specimen, folder), _on_long_texts(specimen, folder, scale)
    own = sft if config is None else _limited(config)
    backend = choose(own).name
    label_tokens, sft, own = (
        _for_one_worker(each, one_gpu=one_gpu) for each in (label_tokens, sft, own)
    )
    return Subject(base, label_tokens, sft, own, backend)


def with_runtime(config: Config, **settings: Any) -> Config:
    """The config with other settings under `runtime`."""
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=settings)})


def _for_one_worker(config: Config, *, one_gpu: bool) -> Config:
    devices = config.runtime.devices
    first = (0,) if devices == "auto" else devices[:1]
    one = {"devices": first} if one_gpu else {}
    # Everything that steps have trained is kept at once, for the check of what a kill leaves.
    return with_runtime(
        config,
        workers=1,
        workers_per_gpu=1,
        pack=1,
        executor="local",
        checkpoint_minutes=1e-6,
        block_compile=False,
        **one,
    )


def _on_texts(config: Config, folder: Path) -> Config:
    """Short texts to classify by label words."""
    data = {
        "train": str(folder / "texts.jsonl"),
        "labels": ["negative", "positive"],
        "prompt": "Text : {text}\nLabel :",
    }
    return _on(config, "label-tokens", SHORT_LENGTH, data)


def _on_long_texts(config: Config, folder: Path, scale: Scale) -> Config:
    """Long completions to learn, and prompts to answer."""
    data = {
        "train": str(folder / "long.jsonl"),
        "attacks": {"file": str(folder / "prompts.jsonl"), "max_new_tokens": 16},
    }
    on_texts = _on(config, "sft", scale.length, data)
    training = on_texts.training.model_copy(update={"batch_size": scale.batch_size})
    return on_texts.model_copy(update={"training": training})


def _on(config: Config, task: str, length: int, data: Mapping[str, object]) -> Config:
    """The config's base, to be trained for another task."""
    own = config.model_dump(mode="json")
    return parse_config(
        {
            "model": {**own["model"], "task": task, "max_length": length},
            "data": data,
            "training": own["training"],
            "runtime": {**own["runtime"], "functions_from": None},
        },
        "check",
    )


def _limited(config: Config) -> Config:
    """The config on some of its rows."""
    limit = min(ROWS, config.data.limit or ROWS)
    return config.model_copy(update={"data": config.data.model_copy(update={"limit": limit})})


def _published(config: Config) -> str:
    """The base's name, but for a folder's, which is nobody else's business."""
    name = str(config.model.base)
    return "a local folder" if Path(name).exists() else name


def specimen_config(folder: Path, *, large: bool) -> Config:
    """A config for a small random Llama and its texts, which are written into `folder`.

    Another process writes them, since that takes torch. Raises WorkerError where it fails.
    """
    done = subprocess.run(
        module_command("coralx.training.tiny_model", str(folder), *(["--large"] if large else [])),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode != 0:
        log = done.stderr.strip()
        raise WorkerError(
            f"the model for the check could not be written to {folder}",
            f"The last line of its output: {log.splitlines()[-1].strip()}" if log else "",
            log,
        )
    return parse_config(
        {
            "model": {"base": str(folder / "model"), "task": "label-tokens", "max_length": 64},
            "data": {
                "train": str(folder / "texts.jsonl"),
                "labels": ["negative", "positive"],
                "prompt": "Text : {text}\nLabel :",
            },
        },
        "specimen",
    )
