"""What a model learns from: one example, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is system, user, assistant or tool. An answer of the assistant
    that is not learnt is only read, as what stands before later ones."""

    role: str
    content: str
    is_learnt: bool = True


@dataclass(frozen=True)
class Example:
    """A labelled text, or for sft a prompt and its completion, or a chat.

    `label` is the class's index in the order of the config's `labels`; 0 for sft. `messages` are
    sft's turns; `is_chat` tells turns of a chat from a bare prompt and its completion. `group` is
    what `robustness` goes by; `source`, of a rewriting, tells by number which row it was made of.
    What a task reads of it stands in `config.metric_catalogue.READS`: an image
    or a sound would be a further field here, and a further word there.
    """

    text: str
    label: int = 0
    messages: tuple[Message, ...] = ()
    is_chat: bool = False
    group: str = ""
    source: int | None = None
