"""What the user of an adapter needs to know of it, as it lies beside the adapter: `coralx.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coralx.config import Config
from coralx.config.input_files import public_name
from coralx.data.builtin import MODELS
from coralx.records.derivations import derivation_json
from coralx.records.events import RunStarted
from coralx.storage.derivation_tree import roots
from coralx.storage.history import History


def about_adapters(config: Config, started: RunStarted) -> dict[str, Any]:
    """What holds for every adapter of a run: what it does, on which base, and a classifier's
    classes, where they are known: runs of earlier versions did not record what the data held."""
    about = {"run": started.run, "task": config.model.task, "base_model": _base(config)}
    classes = {each.task: each.labels for each in started.facts.classes} or {
        name: tuple(source.labels)
        for name, source in config.data.sources.items()
        if source.labels is not None
    }
    if config.model.task == "sft" or classes.keys() != config.data.sources.keys():
        return about
    return {**about, **_labels(classes), "tasks": _tasks(config, classes)}


def origins_of(history: History, genomes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each adapter that was not trained how it was derived, and from which trained genomes it
    stems."""
    return {
        name: {
            "derived": derivation_json(history.genomes[name].derived),
            "trained": roots(history, name),
        }
        for name in genomes
        if history.genomes[name].derived is not None
    }


def _base(config: Config) -> str:
    """What the base is called elsewhere."""
    name = str(config.model.base)
    known = MODELS.get(name.removeprefix("builtin:")) if name.startswith("builtin:") else None
    return known.hub if known is not None else public_name(name)


def _labels(classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """All classes in the order of the logits (label-tokens: of the scores), as transformers has
    them in a model's config. Logits of several tasks follow one another; their classes are then
    called `task: label`."""
    names = [f"{task}: {label}" if task else label for task in classes for label in classes[task]]
    return {
        "labels": names,
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _tasks(config: Config, classes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Each task's own classes and which of them is negative; with a classification head the number
    of its first logit, else what the model is asked."""
    tasks: list[dict[str, Any]] = []
    first = 0
    for task, labels in classes.items():
        source = config.data.sources[task]
        asked = {"prompt": source.prompt, "chat": source.chat}
        place = {"first_logit": first} if config.model.task == "sequence-classification" else asked
        own = {"task": task or None, "labels": list(labels), "negative": labels[0]}
        tasks.append({**own, **place})
        first += len(labels)
    return tasks
