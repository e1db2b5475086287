"""Instructions: pairs and chats as files hold them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coralx.config import parse_config
from coralx.config.data import Data
from coralx.data.splits import Examples, load_examples
from coralx.errors import ConfigError


def written(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def read(path: Path, **settings: Any) -> Examples:
    return load_examples(Data(train=str(path), **settings), 1, "sft")


def turns_of(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(contents)
    listed = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return {"messages": listed}


def all_messages(examples: Examples) -> set[tuple[str, ...]]:
    splits = (*examples.train, *examples.validation, *examples.test)
    return {tuple(message.content for message in example.messages) for example in splits}


def test_prompts_and_completions_are_read_from_every_format(tmp_path: Path) -> None:
    import pandas

    rows = [{"prompt": f'Say "{n}",\tü', "completion": f" {n}.50"} for n in range(12)]
    written(tmp_path / "t.jsonl", rows)
    pandas.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["prompt", "completion"], *(row.values() for row in rows)])
    with (tmp_path / "bare.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[row["completion"], "x", row["prompt"]] for row in rows])
    expected = {(row["prompt"], row["completion"]) for row in rows}
    for name in ("t.jsonl", "t.parquet", "t.csv"):
        assert all_messages(read(tmp_path / name)) == expected
    bare = read(tmp_path / "bare.csv", header=False, prompt_column=2, completion_column=0)
    assert all_messages(bare) == expected
    assert bare.labels == ()
    assert not any(example.is_chat for example in bare.train)


def test_messages_are_read_where_there_is_no_prompt(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", [turns_of(f"ask {n}", f"say {n}") for n in range(10)])
    examples = read(path)
    assert all_messages(examples) == {(f"ask {n}", f"say {n}") for n in range(10)}
    assert all(example.is_chat for example in examples.train)
    both = [turns_of("x", "y") | {"prompt": f"p{n}", "completion": "c"} for n in range(10)]
    preferred = read(written(tmp_path / "both.jsonl", both))
    assert all_messages(preferred) == {(f"p{n}", "c") for n in range(10)}
    other = read(written(tmp_path / "both.jsonl", both), prompt_column="nothing")
    assert all_messages(other) == {("x", "y")}


def test_pairs_become_chats_where_the_config_says_so(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c"} for n in range(10)]
    examples = read(written(tmp_path / "t.jsonl", rows), chat=True)
    assert all(example.is_chat for example in examples.train)
    assert [message.role for message in examples.train[0].messages] == ["user", "assistant"]


def test_a_chat_ends_with_its_last_answer(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", [turns_of("a", f"b{n}", "thanks") for n in range(9)])
    assert all_messages(read(path)) == {("a", f"b{n}") for n in range(9)}


def test_rows_without_an_answer_are_left_out_with_a_warning(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": " c"} for n in range(10)]
    gaps: list[dict[str, Any]] = [{"prompt": "q", "completion": c} for c in ("", " \n", None)]
    examples = read(written(tmp_path / "t.jsonl", rows + gaps))
    assert len(all_messages(examples)) == 10
    assert any("3 rows without a completion were left out" in w for w in examples.warnings)
    chats = [turns_of("a", f"b{n}") for n in range(10)] + [turns_of("a"), turns_of("a", " ")]
    examples = read(written(tmp_path / "c.jsonl", chats))
    assert len(all_messages(examples)) == 10
    assert any(
        "2 rows without an answer of the assistant at the end" in w for w in examples.warnings
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [{"promt": "a", "completion": "b"}],
            r"data\.prompt_column: no column 'prompt'.*did you mean 'promt'",
        ),
        (
            [{"prompt": "a", "completions": "b"}],
            r"data\.completion_column: no column 'completion'.*did you mean 'completions'",
        ),
        ([{"prompt": "a", "completion": ""}], r"no row has a completion \(1 row in all\)"),
        ([turns_of("a")], "no row has an answer"),
        ([{"messages": "hello"}], r"row 1: messages must be a list of \{role, content\}"),
        ([turns_of("a", "b"), {"messages": None}], "row 2: messages must"),
        ([{"messages": [{"role": "user"}]}], r"row 1: messages\[0\].content must be text"),
        ([{"messages": [{"role": "user", "content": ["a"]}]}], "content must be text"),
        ([{"messages": [{"role": "user", "content": 3}]}], "content must be text"),
        (
            [{"messages": [{"role": "human", "content": "a"}]}],
            r"row 1: messages\[0\].role: unknown role 'human'; known: system, user, assistant",
        ),
        ([{"messages": [{"from": "user", "content": "a"}]}], "row 1: .*role"),
        (
            [{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}],
            r"row 1: .*'prompt'.*text",
        ),
        (
            [{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}],
            r"row 1: .*'completion'.*text",
        ),
    ],
)
def test_a_malformed_table_is_refused_with_its_row(
    tmp_path: Path, rows: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        read(written(tmp_path / "t.jsonl", rows))


def test_a_number_beyond_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\nc,d\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data\.completion_column: no column 2 .* 2 columns"):
        read(tmp_path / "t.csv", header=False, prompt_column=0, completion_column=2)


def test_splits_are_disjoint_repeatable_and_nest(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(100)]
    path = written(tmp_path / "t.jsonl", rows)
    whole = read(path, validation_fraction=0.2, test_fraction=0.1)
    splits = (whole.train, whole.validation, whole.test)
    assert [len(split) for split in splits] == [70, 20, 10]
    assert len(all_messages(whole)) == 100
    assert whole == read(path, validation_fraction=0.2, test_fraction=0.1)
    capped = read(path, validation_fraction=0.2, test_fraction=0.1, limit=30)
    wider = read(path, validation_fraction=0.2, test_fraction=0.1, limit=50)
    assert (len(capped.train), len(wider.train)) == (30, 50)
    assert set(capped.train) < set(wider.train) < set(whole.train)
    assert (capped.validation, capped.test) == (whole.validation, whole.test)
    assert whole.warnings == ()


def test_rows_that_stand_in_two_splits_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c"} for n in range(20)]
    train = written(tmp_path / "a.jsonl", rows)
    held = written(tmp_path / "b.jsonl", [*rows[:3], {"prompt": "p0", "completion": "other"}])
    examples = read(train, validation=str(held), test_fraction=0.05)
    found = [w for w in examples.warnings if "validation texts stand in the train split" in w]
    repeated = {f"p{n}" for n in range(3)} & {e.messages[0].content for e in examples.train}
    assert found[0].startswith(f"{len(repeated)} of 4")


def test_rows_cut_and_left_out_are_counted_in_the_facts_of_a_run(
    causal_config: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    from coralx.backends.protocol import create

    rows = [{"prompt": "good " * n, "completion": " bad slow"} for n in range(1, 101)]
    config = causal_config("sft")
    config["model"]["max_length"] = 92
    config["data"]["train"] = str(written(tmp_path / "t.jsonl", rows))
    facts = create("peft").prepare(parse_config(config, "test"), "fp32", 1, lambda _: None)

    def counted(words: str) -> int:
        (warning,) = [text for text in facts.warnings if words in text]
        return sum(int(part.split()[0]) for part in warning.split(" rows ")[0].split(", "))

    assert counted("were left out, too long for model.max_length (92 tokens)") == 10
    assert counted("were cut to model.max_length (92 tokens)") == 2
    assert sum(facts.rows.values()) == 90
