"""Instruction tuning on pairs: what is read, what is learnt, and what it costs."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import numpy as np
import pytest

from tests.support.factories import plain_log_probabilities
from tests.support.languages import Language

torch = pytest.importorskip("torch")

from coralx.errors import ConfigError  # noqa: E402
from coralx.metrics.compute import figures  # noqa: E402
from coralx.training.inference import predict  # noqa: E402
from tests.support.instruction_tuning import (  # noqa: E402
    KINDS,
    STABLE,
    chat,
    instruction_tuning,
    pair,
    with_template,
)

PAIRS = (
    ("Question: is the film good?", " very good"),
    ("Text: a great road and an awful coffee train and a slow phone", " negative."),
    ("bad", " positive, good and very fine"),
    ("the film is a film\n", "Answer: good"),
)


def plain_ids(language: Language, prompt: str, completion: str) -> tuple[Any, Any]:
    """Prompt, and completion with its end, as the tokenizer itself splits the whole text."""
    before = language.tokenizer(prompt)["input_ids"]
    whole = language.tokenizer(prompt + completion)["input_ids"]
    assert whole[: len(before)] == before
    return before, [*whole[len(before) :], language.tokenizer.eos_token_id]


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
