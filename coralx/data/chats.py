"""Chats for supervised fine-tuning: the turns of each, or what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from coralx.data.examples import Example, Message
from coralx.data.tables import problem
from coralx.text import counted, shown

ROLES = ("system", "user", "assistant", "tool")
KEYS_READ = ("role", "content", "weight")
"""Keys of a turn that are read."""

CALLS = ("tool_calls", "function_call")
"""Keys of a turn that hold calls of tools, in place of its content."""


class Chats:
    """Reads the chats of one table, whose turns stand in `column`, and counts what it leaves out:
    answers without a text, which would teach the model to say nothing, and keys of turns."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._empty = 0
        self._ignored: Counter[str] = Counter()

    def read(self, turns: Any, where: str) -> Example | None:
        """The turns up to the assistant's last answer that is to be learnt; None without one.
        Raises ConfigError naming the row and the turn."""
        self._require_turns(turns, where)
        messages = [
            self._message(turn, where, f"{self._column}[{place}]")
            for place, turn in enumerate(turns)
        ]
        # What comes after the last answer is read by nobody.
        while messages and not (messages[-1].role == "assistant" and messages[-1].is_learnt):
            messages.pop()
        if len(messages) < 2 or not messages[-1].content.strip():  # an answer to nothing, or empty
            return None
        text = "".join(message.content for message in messages)
        return Example(text, messages=tuple(messages), is_chat=True)

    def _require_turns(self, turns: Any, where: str) -> None:
        expected = f"{self._column} must be a list of {{role, content}}"
        if not isinstance(turns, list):
            hint = ""
            if isinstance(turns, str):
                hint = (
                    "Save the rows as jsonl or parquet, with a list in that place (json.loads "
                    "makes one of text that is JSON); a cell of csv or tsv is always text."
                )
            raise problem(where, f"{expected}, but is {_kind(turns)}", hint)
        for place, turn in enumerate(turns):
            if not isinstance(turn, dict):
                raise problem(where, f"{expected}, but {self._column}[{place}] is {_kind(turn)}")

    def warnings(self, where: str) -> list[str]:
        """What was left out so far."""
        warnings = [
            f"{where}: the key {shown(key)} of {counted(count, 'turn')} was not read"
            for key, count in sorted(self._ignored.items())
        ]
        if self._empty:
            answers = counted(self._empty, "answer")
            verb = "is" if self._empty == 1 else "are"
            warnings.append(f"{where}: {answers} of the assistant without a text {verb} not learnt")
        return warnings

    def _message(self, turn: Mapping[str, Any], where: str, name: str) -> Message:
        for key in CALLS:
            if turn.get(key):
                raise problem(
                    where,
                    f"{name}.{key}: tool calls are not supported, and without its call the turn "
                    "would teach the model something else",
                    "Write the call into the turn's content, as the base has learnt to write it, "
                    "or leave the row out.",
                )
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            wrong = " is missing or null" if role is None else f": unknown role {shown(role)}"
            raise problem(
                where,
                f"{name}.role{wrong}; known: {', '.join(ROLES)}",
                "Write each turn as {role, content}.",
            )
        if not isinstance(content, str):
            raise problem(
                where,
                f"{name}.content must be text, but is {_kind(content)}",
                "Write what the turn says as one text, or leave the turn out.",
            )
        self._ignored.update(key for key, value in turn.items() if value and key not in KEYS_READ)
        is_learnt = role == "assistant" and _weight(turn, where, name) == 1
        if is_learnt and not content.strip():
            self._empty += 1
        return Message(role, content, is_learnt)


def _weight(turn: Mapping[str, Any], where: str, name: str) -> int:
    """Whether an answer is learnt (1) or only read (0)."""
    weight = turn.get("weight")
    if weight is None or weight in (0, 1):
        return 1 if weight is None else int(weight)
    raise problem(
        where,
        f"{name}.weight must be 1, or 0 for an answer that is not learnt, but is {shown(weight)}",
    )


def _kind(content: Any) -> str:
    if content is None:
        return "missing or null"
    if isinstance(content, str):
        return f"text: {shown(content)}"
    return "a list of parts" if isinstance(content, list) else shown(content)
