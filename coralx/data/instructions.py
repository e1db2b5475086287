"""Instructions for supervised fine-tuning: prompts with completions, or chats."""

from __future__ import annotations

from collections.abc import Sequence

from coralx.config.data import Source, key_of
from coralx.config.suggest import did_you_mean
from coralx.data.chats import Chats
from coralx.data.examples import Example, Message
from coralx.data.tables import Row, as_text, column_name, problem, read_table
from coralx.wording import counted, left_out


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
    table = read_table(data, name, key)
    columns = list(table[0])
    if data.prompt_column not in columns and data.messages_column in columns:
        chats = Chats(data.messages_column)
        found = [
            chats.read(row.get(data.messages_column), f"{where}, row {number}")
            for number, row in enumerate(table, 1)
        ]
        warnings += [*chats.warnings(where), *_tools(table, where)]
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
        prompt, completion = (
            column_name(getattr(data, role), key_of(task, role), columns, name)
            for role in ("prompt_column", "completion_column")
        )
        found = [
            _instruction(data, row, prompt, completion, f"{where}, row {number}")
            for number, row in enumerate(table, 1)
        ]
        wanted = "a completion"
    kept = [example for example in found if example is not None]
    if not kept:
        raise problem(where, f"of its {counted(len(table), 'row')}, none has {wanted}")
    if len(kept) < len(table):
        warnings.append(f"{where}: {left_out(len(table) - len(kept), f'without {wanted}')}")
    return kept


def _tools(table: Sequence[Row], where: str) -> list[str]:
    """A warning where chats come with descriptions of tools, which no prompt shows."""
    count = sum(bool(row.get("tools")) for row in table)
    told = f"{where}: the column 'tools' of {counted(count, 'row')} was not read"
    return [f"{told}: the model is not shown which tools there are"] if count else []


def _instruction(
    data: Source, row: Row, prompt: str, completion: str, where: str
) -> Example | None:
    """None without a completion."""
    for column in (prompt, completion):
        if isinstance(row.get(column), list | dict):
            raise problem(
                where,
                f"column {column!r} must hold text",
                f"A chat belongs into one list of turns: data.messages_column "
                f"({data.messages_column!r}).",
            )
    asked, answer = as_text(row.get(prompt)), as_text(row.get(completion))
    if not answer.strip():
        return None
    turns = (Message("user", asked), Message("assistant", answer))
    return Example(f"{asked}\n{answer}", messages=turns, is_chat=data.chat)
