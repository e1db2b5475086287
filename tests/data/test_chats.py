"""Chats as they are written: what a turn may hold, and what is passed over and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from coralx.config.data import Data
from coralx.data.chats import Chats
from coralx.data.examples import Message
from coralx.data.splits import Examples, load_examples
from coralx.errors import ConfigError

ASKED = {"role": "user", "content": "What is the time?"}
ANSWER = {"role": "assistant", "content": "Ten."}
CALL = [{"type": "function", "function": {"name": "clock", "arguments": "{}"}}]


def refusal(*turns: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Chats("messages").read(list(turns), "data.train: c.jsonl, row 7")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("data.train: c.jsonl, row 7: ")
    return caught.value


@pytest.mark.parametrize("content", ["", None, "Let me see.", " \n"])
@pytest.mark.parametrize(
    "said", [{"tool_calls": CALL}, {"function_call": {"name": "clock", "arguments": "{}"}}]
)
@pytest.mark.parametrize("followed", [True, False])
def test_a_call_of_a_tool_is_refused_by_row_turn_and_key(
    content: str | None, said: dict[str, Any], *, followed: bool
) -> None:
    """Whether it is what would be learnt or what stands before it."""
    call = {"role": "assistant", "content": content, **said}
    later = [{"role": "tool", "content": "10:00"}, ANSWER] if followed else []
    error = refusal(ASKED, call, *later)
    assert (
        f"row 7: messages[1].{next(iter(said))}: tool calls are not supported" in error.problems[0]
    )
    assert "leave the row out" in error.hint


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_a_key_that_holds_nothing_is_no_call(nothing: Any) -> None:
    chats = Chats("messages")
    turn = {**ANSWER, "tool_calls": nothing, "function_call": nothing, "name": nothing}
    assert chats.read([ASKED, turn], "x") is not None
    assert chats.warnings("x") == []


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (
            {"role": "assistant", "content": None},
            "messages[1].content must be text, but is missing or null",
        ),
        ({"role": "assistant"}, "messages[1].content must be text, but is missing or null"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "Ten."}]},
            "messages[1].content must be text, but is a list of parts",
        ),
        ({"role": "assistant", "content": 10}, "messages[1].content must be text, but is 10"),
        ({"role": "function", "content": "x"}, "unknown role 'function'"),
        ({"content": "x"}, "messages[1].role is missing or null"),
        (
            {**ANSWER, "weight": 0.5},
            "messages[1].weight must be 1, or 0 for an answer that is not learnt, but is 0.5",
        ),
        ({**ANSWER, "weight": "0"}, "not learnt, but is '0'"),
        ("Ten.", "messages must be a list of {role, content}, but messages[1] is text: 'Ten.'"),
    ],
)
def test_a_turn_that_cannot_be_read_is_named(turn: Any, says: str) -> None:
    assert says in refusal(ASKED, turn).problems[0]


def test_turns_given_as_text_are_told_to_be_text() -> None:
    with pytest.raises(ConfigError) as caught:
        Chats("messages").read('[{"role": "user", "content": "Hi"}]', "row 1")
    assert "must be a list of {role, content}, but is text: '[{" in caught.value.problems[0]
    assert "jsonl or parquet, with a list in that place" in caught.value.hint


def test_a_hostile_role_is_shown_short() -> None:
    error = refusal({"role": "x" * 10_000, "content": "a"})
    assert len(error.message) < 400


def test_answers_of_weight_zero_are_read_and_not_learnt() -> None:
    first = {"role": "assistant", "content": "Wrong.", "weight": 0}
    example = Chats("messages").read([ASKED, first, ASKED, {**ANSWER, "weight": 1}], "x")
    assert example is not None
    assert [turn.is_learnt for turn in example.messages] == [False, False, False, True]
    assert example.messages[1] == Message("assistant", "Wrong.", is_learnt=False)
    cut = Chats("messages").read([ASKED, ANSWER, ASKED, first], "x")
    assert cut is not None
    assert len(cut.messages) == 2  # what stands behind the last answer to learn is not needed
    assert Chats("messages").read([ASKED, first], "x") is None


def read(folder: Path, rows: list[dict[str, Any]]) -> Examples:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_examples(Data(train=str(path)), 1, "sft")


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    empty = {"role": "assistant", "content": " "}
    rows: list[dict[str, Any]] = [
        {"messages": [{**ASKED, "name": "Ann"}, empty, ASKED, {**ANSWER, "content": f"{n}"}]}
        for n in range(9)
    ]
    rows[4]["tools"] = [{"type": "function", "function": {"name": "clock"}}]
    names, answers, tools = read(tmp_path, rows).warnings
    where = f"data.train: {tmp_path}/t.jsonl: "
    assert names == f"{where}the key 'name' of 9 turns was not read"
    assert answers == f"{where}9 answers of the assistant without a text are not learnt"
    assert tools.startswith(f"{where}the column 'tools' of 1 row was not read")
