"""What a model learns from: one example, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    """system, user, assistant or tool."""

    content: str

    is_learnt: bool = True
    """Whether an answer of the assistant is trained on, or only read before later ones."""


@dataclass(frozen=True)
class Example:
    """A labelled text, or for sft a prompt and its completion, or a chat.

    Which of it a task reads stands in `config.metric_catalogue.READS`: an image or a sound would be
    a further field here, and a further word there.
    """

    text: str

    label: int = 0
    """The number of its class, in the order of the config's `labels`; 0 for sft."""

    messages: tuple[Message, ...] = ()
    """The turns, for sft."""

    is_chat: bool = False
    """Whether the turns are a chat's, to be put into the chat template, or a bare prompt and its
    completion."""

    group: str = ""
    """What `data.group` says of it; `robustness` is the AUROC of the worst group."""

    source: int | None = None
    """Of a rewriting, the number of the row that it was made of."""
