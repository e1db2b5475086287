"""Instructions for supervised fine-tuning: prompts with completions, or chats."""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config.data import TaskData, key_of
from coralx.data.chats import Chats
from coralx.data.examples import Example, Message
from coralx.data.reading import read_table
from coralx.data.tables import Row, TableRows, problem
from coralx.text import counted, did_you_mean, left_out

TOOLS = "tools"
"""The column in which data sets of chats describe the tools that there were."""


def read_instructions(
    source: TaskData, task: str, splits: Sequence[str], warnings: list[str]
) -> tuple[dict[str, list[Example]], dict[str, tuple[str, ...]]]:
    """Examples of each split; there are no classes.

    A table is read as chats where it has `messages_column` and no `prompt_column`. Raises
    ConfigError where it has neither, or where a chat is malformed.
    """
    return {split: _read_split(source, task, split, warnings) for split in splits}, {}


def _read_split(source: TaskData, task: str, split: str, warnings: list[str]) -> list[Example]:
    name, key = str(getattr(source, split)), key_of(task, split)
    where = f"{key}: {name}"
    columns = (source.prompt_column, source.completion_column, source.messages_column, TOOLS)
    table = read_table(source, name, key, columns, warnings)
    if source.prompt_column not in table.columns and source.messages_column in table.columns:
        chats = Chats(source.messages_column)
        examples = [
            chats.read(row.get(source.messages_column), f"{where}, row {number}")
            for number, row in enumerate(table.rows, 1)
        ]
        warnings += [*chats.warnings(where), *_tools(table.rows, where)]
        needed = "an answer of the assistant at the end"
    else:
        examples = _instructions(table, source, task)
        needed = "a completion"
    kept = [example for example in examples if example is not None]
    if not kept:
        raise problem(where, f"no row has {needed} ({counted(len(table.rows), 'row')} in all)")
    if len(kept) < len(table.rows):
        omitted = len(table.rows) - len(kept)
        warnings.append(f"{where}: {left_out(omitted, f'without {needed}')}")
    return kept


def _tools(rows: Sequence[Row], where: str) -> list[str]:
    """A warning where chats come with descriptions of tools, which no prompt shows."""
    count = sum(bool(row.get(TOOLS)) for row in rows)
    if not count:
        return []
    return [
        f"{where}: the column {TOOLS!r} of {counted(count, 'row')} was not read: the model is not "
        "shown which tools there are"
    ]


def _instructions(table: TableRows, source: TaskData, task: str) -> list[Example | None]:
    """The prompts of a table with their completions; None for a row without a completion."""
    if isinstance(source.prompt_column, str) and source.prompt_column not in table.columns:
        near = did_you_mean(source.prompt_column, table.columns)
        raise problem(
            key_of(task, "prompt_column"),
            f"no column {source.prompt_column!r}{near} in {table.name}, and no "
            f"{source.messages_column!r}; it has {', '.join(map(repr, table.columns))}",
            f"Name its columns: {key_of(task, 'prompt_column')} and "
            f"{key_of(task, 'completion_column')}, or {key_of(task, 'messages_column')}.",
        )
    hint = f"A chat belongs into one list of turns: {key_of(task, 'messages_column')}."
    prompts, completions = (
        table.texts(table.column(getattr(source, role), key_of(task, role)), hint)
        for role in ("prompt_column", "completion_column")
    )
    return [
        _instruction(prompt, completion, is_chat=source.chat)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _instruction(prompt: str, completion: str, *, is_chat: bool) -> Example | None:
    if not completion.strip():
        return None
    turns = (Message("user", prompt), Message("assistant", completion))
    return Example(f"{prompt}\n{completion}", messages=turns, is_chat=is_chat)
