"""Instructions for supervised fine-tuning: prompts with completions, or chats."""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config.data import Source, key_of
from coralx.data.chats import Chats
from coralx.data.examples import Example, Message
from coralx.data.reading import read_table
from coralx.data.tables import Row, problem
from coralx.text import counted, did_you_mean, left_out

TOOLS = "tools"
"""The column in which data sets of chats describe the tools that there were."""


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
    wanted_columns = (data.prompt_column, data.completion_column, data.messages_column, TOOLS)
    table = read_table(data, name, key, wanted_columns, warnings)
    columns = table.columns
    if data.prompt_column not in columns and data.messages_column in columns:
        chats = Chats(data.messages_column)
        found = [
            chats.read(row.get(data.messages_column), f"{where}, row {number}")
            for number, row in enumerate(table.rows, 1)
        ]
        warnings += [*chats.warnings(where), *_tools(table.rows, where)]
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
        hint = f"A chat belongs into one list of turns: {key_of(task, 'messages_column')}."
        prompts, completions = (
            table.texts(table.column(getattr(data, role), key_of(task, role)), hint)
            for role in ("prompt_column", "completion_column")
        )
        found = [
            _instruction(asked, answer, is_chat=data.chat)
            for asked, answer in zip(prompts, completions, strict=True)
        ]
        wanted = "a completion"
    kept = [example for example in found if example is not None]
    if not kept:
        raise problem(where, f"of its {counted(len(table.rows), 'row')}, none has {wanted}")
    if len(kept) < len(table.rows):
        gone = len(table.rows) - len(kept)
        warnings.append(f"{where}: {left_out(gone, f'without {wanted}')}")
    return kept


def _tools(rows: Sequence[Row], where: str) -> list[str]:
    """A warning where chats come with descriptions of tools, which no prompt shows."""
    count = sum(bool(row.get(TOOLS)) for row in rows)
    told = f"{where}: the column {TOOLS!r} of {counted(count, 'row')} was not read"
    return [f"{told}: the model is not shown which tools there are"] if count else []


def _instruction(asked: str, answer: str, *, is_chat: bool) -> Example | None:
    """None without a completion."""
    if not answer.strip():
        return None
    turns = (Message("user", asked), Message("assistant", answer))
    return Example(f"{asked}\n{answer}", messages=turns, is_chat=is_chat)
