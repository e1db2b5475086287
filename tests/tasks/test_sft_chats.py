"""Instruction tuning on chats: which answers are learnt, and what a template does to them."""

from __future__ import annotations

import pytest

from tests.support.languages import Language

torch = pytest.importorskip("torch")

from coralx.data.examples import Example, Message  # noqa: E402
from coralx.errors import ConfigError  # noqa: E402
from tests.support.instruction_tuning import (  # noqa: E402
    KINDS,
    STABLE,
    chat,
    instruction_tuning,
    learnt,
    pair,
    with_template,
)

REWRITING = (
    "{% for message in messages %}"
    "[{{ message['role'] }}] "
    "{% if message['role'] == 'assistant' and not loop.last %}"
    "{{ message['content'].split('</think>') | last }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Leaves the thoughts out of all answers but the last."""


TALK = (
    ("system", "Answer : good"),
    ("user", "the film"),
    ("assistant", "very good"),
    ("user", "the road"),
    ("assistant", "bad"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_of_a_chat_is_learnt_with_its_end(
    languages: dict[str, Language], kind: str
) -> None:
    language = with_template(languages[kind], STABLE)
    tokenizer = language.tokenizer
    data = instruction_tuning(language).encode([chat(*TALK)])
    end = tokenizer.eos_token
    joined = [run.replace(" ", "") for run in learnt(language, data)]
    assert joined == [f"verygood{end}", f"bad{end}"]
    turns = [{"role": role, "content": content} for role, content in TALK]
    whole = tokenizer.apply_chat_template(turns, tokenize=False).rstrip()
    assert list(data.ids[0]) == tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_that_rewrites_history_leaves_the_last_answer(
    languages: dict[str, Language], kind: str
) -> None:
    language = with_template(languages[kind], REWRITING)
    talk = (
        ("user", "the film"),
        ("assistant", "it is fine </think> very good"),
        ("user", "the road"),
        ("assistant", "it is slow </think> bad"),
    )
    data = instruction_tuning(language).encode([chat(*talk)])
    end = language.tokenizer.eos_token
    assert len(data.targets[0]) == data.targets[0][-1] + 1 - data.targets[0][0]
    turns = [{"role": role, "content": content} for role, content in talk]
    asked = language.tokenizer.apply_chat_template(
        turns[:-1], add_generation_prompt=True, return_dict=False
    )
    assert list(data.ids[0][: data.targets[0][0]]) == asked
    text = language.tokenizer.decode(data.ids[0])
    assert text.count("fine") == 0
    assert text.endswith(end)
    assert "slow" in "".join(learnt(language, data)).replace(" ", "")


def test_an_answer_that_the_template_writes_elsewhere_is_learnt_as_it_is(
    languages: dict[str, Language],
) -> None:
    """The generation prompt says what a finished chat does not."""
    template = STABLE.replace("%}[assistant]{%", "%}[assistant] think :{%")
    language = with_template(languages["words"], template)
    data = instruction_tuning(language).encode([chat(*TALK)])
    assert learnt(language, data) == ["bad </s>"]
    before = language.tokenizer.decode(data.ids[0][: data.targets[0][0]])
    assert before.endswith(":")


def test_a_base_without_an_end_of_text_can_learn(languages: dict[str, Language]) -> None:
    template = STABLE.replace("%}[assistant]{%", "%}[assistant] think :{%").replace(
        "{{ eos_token }}", "."
    )
    language = with_template(languages["words"], template)
    language.tokenizer.eos_token = None
    rows = [chat(*TALK), pair("Question", " good")]
    data = instruction_tuning(language).encode(rows)
    assert [learnt(language, data, row) for row in (0, 1)] == [["bad"], ["good"]]


def test_an_empty_answer_on_the_way_repeats_nothing(languages: dict[str, Language]) -> None:
    template = (
        "{% for message in messages %}{{ message['role'] }} :\n{{ message['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant :\n{% endif %}"
    )
    language = with_template(languages["bytes"], template)
    talk = (("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "good"))
    data = instruction_tuning(language).encode([chat(*talk)])
    expected = "user :\na\nassistant :\n\nuser :\nb\nassistant :\ngood"
    assert language.tokenizer.decode(data.ids[0]) == expected
    assert learnt(language, data) == ["good"]


def test_a_long_chat_is_cut_at_the_end(languages: dict[str, Language]) -> None:
    language = with_template(languages["words"], STABLE)
    whole = instruction_tuning(language).encode([chat(*TALK)])
    first, last = (run[0] for run in (whole.targets[0], whole.targets[0][3:]))
    for length in range(4, len(whole.ids[0]) + 1):
        task = instruction_tuning(language, length)
        if length <= first:
            with pytest.raises(ConfigError, match="no prompt leaves room"):
                task.encode([chat(*TALK)])
            continue
        data = task.encode([chat(*TALK)])
        assert data.ids[0] == whole.ids[0][:length]
        assert data.targets[0] == tuple(place for place in whole.targets[0] if place < length)
        assert data.cut == (length < len(whole.ids[0]))
    assert first < last


def test_chats_need_a_template(languages: dict[str, Language]) -> None:
    language = with_template(languages["words"], None)
    with pytest.raises(ConfigError, match="no chat template"):
        instruction_tuning(language).encode([chat(*TALK)])
    assert instruction_tuning(language).encode([pair("Question", " good")]).ids
    several = {"rag": STABLE, "tool_use": STABLE}
    language = with_template(languages["words"], several)
    with pytest.raises(ConfigError, match="called default; it has 'rag', 'tool_use'") as caught:
        instruction_tuning(language).encode([chat(*TALK)])
    assert "rename one" in caught.value.hint
    language = with_template(languages["words"], {**several, "default": STABLE})
    assert instruction_tuning(language).encode([chat(*TALK)]).ids


def test_what_a_template_refuses_is_a_problem_of_the_config(
    languages: dict[str, Language],
) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    language = with_template(languages["words"], refusing + STABLE)
    with pytest.raises(ConfigError, match=r"chat of system, user.*no system"):
        instruction_tuning(language).encode([chat(*TALK)])


def test_an_answer_that_opens_a_chat_is_no_fault_of_the_template(
    languages: dict[str, Language],
) -> None:
    language = with_template(languages["words"], STABLE)
    talk = (("assistant", "good"), ("user", "the film"), ("assistant", "bad"))
    data = instruction_tuning(language).encode([chat(*talk)])
    assert learnt(language, data)[-1] == "bad </s>"


def test_answers_that_are_not_to_be_learnt_are_only_read(languages: dict[str, Language]) -> None:
    language = with_template(languages["words"], STABLE)
    turns = [Message(*turn) for turn in TALK]
    turns[2] = Message("assistant", "very good", is_learnt=False)
    data = instruction_tuning(language).encode([Example("", messages=tuple(turns), is_chat=True)])
    assert learnt(language, data) == ["bad </s>"]
    assert data.ids == instruction_tuning(language).encode([chat(*TALK)]).ids


def test_an_answer_without_a_text_teaches_no_end(languages: dict[str, Language]) -> None:
    """Not even where its end would be a token of its own."""
    language = with_template(languages["words"], STABLE)
    talk = (*TALK[:2], ("assistant", " "), *TALK[3:])
    assert learnt(language, instruction_tuning(language).encode([chat(*talk)])) == ["bad </s>"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_nothing_but_an_end_to_learn_are_left_out_and_counted(
    languages: dict[str, Language], kind: str
) -> None:
    language = with_template(languages[kind], STABLE)
    end = language.tokenizer.eos_token
    rows = [pair("Question", f" {end}"), pair("Question", " good"), chat(*TALK[:4], TALK[4])]
    rows.append(chat(("user", "the film"), ("assistant", end)))
    data = instruction_tuning(language).encode(rows)
    assert (data.empty, data.left_out, data.kept) == (2, 0, (1, 2))
    with pytest.raises(ConfigError, match=r"data: of 1 row, none has an answer to learn"):
        instruction_tuning(language).encode(rows[:1])


@pytest.mark.parametrize("role", ["tool", "system"])
def test_a_turn_that_the_template_drops_is_refused(
    languages: dict[str, Language], role: str
) -> None:
    dropping = STABLE.replace(
        "{% for message in messages %}",
        f"{{% for message in messages if message['role'] != '{role}' %}}",
    )
    turns = (("user", "the road"), (role, "the film is slow"), ("assistant", "bad"))
    whole = instruction_tuning(with_template(languages["words"], STABLE)).encode([chat(*turns)])
    assert "slow" in languages["words"].tokenizer.decode(whole.ids[0])
    with pytest.raises(ConfigError, match=rf"leaves out turns of the role '{role}'.*film is slow"):
        instruction_tuning(with_template(languages["words"], dropping)).encode([chat(*turns)])


def test_a_turn_that_the_template_writes_otherwise_is_not_dropped(
    languages: dict[str, Language],
) -> None:
    template = STABLE.replace("message['content']", "message['content'] | tojson")
    language = with_template(languages["bytes"], template)
    turns = (("user", 'say "bad"'), ("assistant", "good"))
    assert instruction_tuning(language).encode([chat(*turns)]).ids
