"""Instruction tuning: what is read, what is learnt, and what a tokenizer's template does to it."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import numpy as np
import pytest

from tests.support.factories import make_config, plain_log_probabilities
from tests.support.languages import Language

torch = pytest.importorskip("torch")

from coralx.data.examples import Example, Message  # noqa: E402
from coralx.errors import ConfigError  # noqa: E402
from coralx.metrics.compute import figures  # noqa: E402
from coralx.tasks.protocol import Encoded  # noqa: E402
from coralx.tasks.sft import SupervisedFineTuning  # noqa: E402
from coralx.training.inference import predict  # noqa: E402

KINDS = ("words", "pieces", "bytes")
PAIRS = (
    ("Question: is the film good?", " very good"),
    ("Text: a great road and an awful coffee train and a slow phone", " negative."),
    ("bad", " positive, good and very fine"),
    ("the film is a film\n", "Answer: good"),
)
STABLE = (
    "{% for message in messages %}"
    "[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
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


def instruction_tuning(
    language: Language, max_length: int = 128, *, fused_loss: bool = False
) -> SupervisedFineTuning:
    config = make_config(model={"task": "sft", "max_length": max_length})
    return SupervisedFineTuning(
        language.tokenizer, config, torch.device("cpu"), fused_loss=fused_loss
    )


def pair(prompt: str, completion: str) -> Example:
    turns = (Message("user", prompt), Message("assistant", completion))
    return Example(prompt + completion, messages=turns)


def chat(*turns: tuple[str, str]) -> Example:
    return Example("", messages=tuple(Message(*turn) for turn in turns), is_chat=True)


def with_template(language: Language, template: Any) -> Language:
    tokenizer = copy.deepcopy(language.tokenizer)
    tokenizer.chat_template = template
    return Language(tokenizer, language.model)


def plain_ids(language: Language, prompt: str, completion: str) -> tuple[Any, Any]:
    """Prompt, and completion with its end, as the tokenizer itself splits the whole text."""
    before = language.tokenizer(prompt)["input_ids"]
    whole = language.tokenizer(prompt + completion)["input_ids"]
    assert whole[: len(before)] == before
    return before, [*whole[len(before) :], language.tokenizer.eos_token_id]


def learnt(language: Language, data: Encoded, row: int = 0) -> list[str]:
    """The runs of tokens that count, decoded."""
    runs: list[list[int]] = []
    for place in data.targets[row]:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [
        language.tokenizer.decode([data.ids[row][place] for place in run]).strip() for run in runs
    ]


# -- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_tokenizers_own_split_and_ends_once(
    languages: dict[str, Language], kind: str
) -> None:
    language = languages[kind]
    data = instruction_tuning(language).encode([pair(*both) for both in PAIRS])
    for (prompt, completion), ids, targets in zip(PAIRS, data.ids, data.targets, strict=True):
        before, after = plain_ids(language, prompt, completion)
        assert list(ids) == before + after
        assert list(targets) == list(range(len(before), len(before) + len(after)))
        assert ids.count(language.tokenizer.eos_token_id) == 1
    assert (data.cut, data.left_out) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_that_brings_its_end_gets_no_second_one(
    languages: dict[str, Language], kind: str
) -> None:
    language = languages[kind]
    ended = pair("Question", f" good{language.tokenizer.eos_token}")
    task = instruction_tuning(language)
    assert task.encode([ended]).ids == task.encode([pair("Question", " good")]).ids


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_prompt_leaves_the_completion_to_be_learnt(
    languages: dict[str, Language], kind: str
) -> None:
    """Its first token only where something stands before it."""
    language = languages[kind]
    data = instruction_tuning(language).encode([pair("", "the film is good")])
    whole = [*language.tokenizer("the film is good")["input_ids"], language.tokenizer.eos_token_id]
    assert list(data.ids[0]) == whole
    assert data.targets[0] == tuple(range(1, len(whole)))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_completions_alone(
    languages: dict[str, Language], kind: str
) -> None:
    language = languages[kind]
    model = copy.deepcopy(language.model)
    task, rows = instruction_tuning(language), [3, 0, 2, 1]
    loss = task.loss(model, task.encode([pair(*both) for both in PAIRS]), rows)
    loss.backward()
    ours = {name: part.grad.clone() for name, part in model.named_parameters()}
    model.zero_grad()
    split = [plain_ids(language, *PAIRS[row]) for row in rows]
    plain = -torch.cat([plain_log_probabilities(model, *both) for both in split]).mean()
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)
    for name, part in model.named_parameters():
        assert torch.allclose(ours[name], part.grad, atol=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_inside_the_model_is_the_same(languages: dict[str, Language], kind: str) -> None:
    language = with_template(languages[kind], STABLE)
    model = copy.deepcopy(language.model)
    turns = chat(("user", "bad"), ("assistant", "good"), ("user", "the"), ("assistant", "a film"))
    rows = [*(pair(*both) for both in PAIRS), pair("", "good"), turns]
    found = []
    for fused_loss in (False, True):
        task = instruction_tuning(language, 30, fused_loss=fused_loss)
        data = task.encode(rows)
        loss = task.loss(model, data, range(len(data.ids)))
        model.zero_grad()
        loss.backward()
        found.append((loss.item(), [part.grad.clone() for part in model.parameters()]))
    (outside, gradients), (inside, others) = found
    assert outside == pytest.approx(inside, abs=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, others, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_figures_weigh_every_token_the_same(languages: dict[str, Language], kind: str) -> None:
    language = languages[kind]
    task = instruction_tuning(language)
    data = task.encode([pair(*both) for both in PAIRS])
    scores = predict(language.model, task, data, contextlib.nullcontext)
    with torch.no_grad():
        plain = [
            -plain_log_probabilities(language.model, *plain_ids(language, *both)) for both in PAIRS
        ]
    assert scores[:, 0] == pytest.approx([row.sum().item() for row in plain], abs=1e-4)
    assert scores[:, 1].tolist() == [len(row) for row in plain]
    found = figures({"": task.by_row(scores, data)})
    assert found["eval_loss"] == pytest.approx(torch.cat(plain).mean().item(), abs=1e-5)
    assert found["eval_loss"] is not None
    assert found["perplexity"] == pytest.approx(math.exp(found["eval_loss"]))
    with torch.no_grad():
        trained = task.loss(language.model, data, range(len(PAIRS))).item()
    assert found["eval_loss"] == pytest.approx(trained, abs=1e-5)


def test_scores_do_not_depend_on_the_company_of_a_row(languages: dict[str, Language]) -> None:
    language = languages["bytes"]
    task = instruction_tuning(language)
    data = task.encode([pair(*both) for both in PAIRS])
    with torch.no_grad():
        alone = np.concatenate([task.scores(language.model, data, [row]) for row in range(4)])
        for rows in ([3, 2, 1, 0], [1, 1], [0, 3]):
            assert task.scores(language.model, data, rows) == pytest.approx(alone[rows], abs=1e-4)


# -- rows that are too long ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_too_long_is_cut_at_the_end_or_left_out(
    languages: dict[str, Language], kind: str
) -> None:
    language = languages[kind]
    before, after = plain_ids(language, *PAIRS[2])
    whole = before + after
    for length in range(4, len(whole) + 2):
        rows = [pair(*PAIRS[2]), pair("a " * 90, " good"), pair("a", " b")]
        data = instruction_tuning(language, length).encode(rows)
        kept = len(before) < length
        assert data.left_out == (1 if kept else 2)
        if kept:
            assert list(data.ids[0]) == whole[:length]
            assert data.targets[0] == tuple(range(len(before), min(length, len(whole))))
            short = sum(map(len, plain_ids(language, "a", " b")))
            assert data.cut == (length < len(whole)) + (length < short)
        assert len(data.ids) == len(data.targets) == len(data.labels) == 3 - data.left_out


def test_rows_of_which_none_has_room_for_a_completion_are_refused(
    languages: dict[str, Language],
) -> None:
    with pytest.raises(ConfigError, match=r"model\.max_length: 6: no prompt leaves room"):
        instruction_tuning(languages["words"], 6).encode([pair("a " * 9, " b")] * 3)


# -- chats ---------------------------------------------------------------------------------------

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
