"""Instructions for supervised fine-tuning: prompts with completions, or chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coralx.config.data import Source, key_of
from coralx.config.suggest import did_you_mean
from coralx.data.examples import Example, Message
from coralx.data.reading import read_table
from coralx.data.tables import problem

ROLES = ("system", "user", "assistant", "tool")


def read_instructions(
    source: Source, task: str, splits: Sequence[str], warnings: list[str]
) -> tuple[dict[str, list[Example]], dict[str, tuple[str, ...]]]:
    """Examples of each split; there are no classes.

    A table is read as chats where it has `messages_column` and no `prompt_column`. Raises
    ConfigError where it has neither, or where a chat is malformed.
    """
    return {split: _read_split(source, task, split, warnings) for split in splits}, {}


def _read_split(data: Source, task: str, split: str, warnings: list[str]) -> list[Example]:
    name, key = str(getattr(data, split)), key_of(task, split)
    where = f"{key}: {name}"
    columns_wanted = (data.prompt_column, data.completion_column, data.messages_column)
    table = read_table(data, name, key, columns_wanted, warnings)
    columns = table.columns
    if data.prompt_column not in columns and data.messages_column in columns:
        found = [
            _chat(row.get(data.messages_column), f"{where}, row {number}")
            for number, row in enumerate(table.rows, 1)
        ]
        wanted = "an answer of the assistant at the end"
    elif isinstance(data.prompt_column, str) and data.prompt_column not in columns:
        raise problem(
            key_of(task, "prompt_column"),
            f"no column {data.prompt_column!r}{did_you_mean(data.prompt_column, columns)} in "
            f"{name}, and no {data.messages_column!r}; it has {', '.join(map(repr, columns))}",
            f"Name its columns: {key_of(task, 'prompt_column')} and "
            f"{key_of(task, 'completion_column')}, or {key_of(task, 'messages_column')}.",
        )
    else:
        chats = f"A chat belongs into one list of turns: {key_of(task, 'messages_column')}."
        prompts, completions = (
            table.texts(table.column(getattr(data, role), key_of(task, role)), chats)
            for role in ("prompt_column", "completion_column")
        )
        found = [
            _instruction(asked, answer, is_chat=data.chat)
            for asked, answer in zip(prompts, completions, strict=True)
        ]
        wanted = "a completion"
    kept = [example for example in found if example is not None]
    if not kept:
        raise problem(where, f"none of its {len(table.rows)} rows has {wanted}")
    if len(kept) < len(table.rows):
        gone = len(table.rows) - len(kept)
        warnings.append(f"{where}: {gone} rows without {wanted} were left out")
    return kept


def _instruction(asked: str, answer: str, *, is_chat: bool) -> Example | None:
    """None without a completion."""
    if not answer.strip():
        return None
    turns = (Message("user", asked), Message("assistant", answer))
    return Example(f"{asked}\n{answer}", messages=turns, is_chat=is_chat)


def _chat(turns: Any, where: str) -> Example | None:
    """The turns up to the assistant's last answer; None without one."""
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns
    ):
        raise problem(where, "messages must be a list of {role, content}, content as text")
    messages = [Message(str(turn.get("role")), turn["content"]) for turn in turns]
    unknown = [message.role for message in messages if message.role not in ROLES]
    if unknown:
        raise problem(where, f"unknown role {unknown[0]!r}; known: {', '.join(ROLES)}")
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if len(messages) < 2 or not messages[-1].content.strip():
        return None
    text = "".join(message.content for message in messages)
    return Example(text, messages=tuple(messages), is_chat=True)
