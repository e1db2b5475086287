"""Several tasks trained together: whose rows stand where, and what each of them counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from coralx.tasks.multi_task import MultiTask, mixed  # noqa: E402
from coralx.tasks.protocol import Encoded, Trainable  # noqa: E402


class Tokens:
    """A task whose loss is a row's first id, a mean over its tokens."""

    def __init__(self, eval_tokens: int) -> None:
        self.eval_tokens = eval_tokens

    def weight(self, data: Encoded, rows: Sequence[int]) -> int:
        return sum(len(data.ids[row]) for row in rows)

    def loss(self, model: Any, data: Encoded, rows: Sequence[int]) -> Any:
        each = torch.tensor([float(data.ids[row][0]) for row in rows], requires_grad=True)
        share = torch.tensor([len(data.ids[row]) / self.weight(data, rows) for row in rows])
        return (each * share).sum()


def part(task: int, sizes: Sequence[int], classes: int = 2) -> Encoded:
    """So many rows, told apart by their first id, each of its own length."""
    ids = tuple((100 * task + n, *[0] * (size - 1)) for n, size in enumerate(sizes))
    return Encoded(ids, np.arange(len(sizes)) % classes, cut=task + 1, left_out=task)


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=30)


@given(st.lists(sizes, min_size=2, max_size=4), st.integers(0, 99))
@settings(deadline=None)
def test_every_row_is_there_once_with_its_task_and_label(
    listed: list[list[int]], seed: int
) -> None:
    parts = [part(task, lengths) for task, lengths in enumerate(listed)]
    found = mixed(parts, seed)
    assert sorted(found.ids) == sorted(row for one in parts for row in one.ids)
    for ids, task, label in zip(found.ids, found.tasks, found.labels, strict=True):
        assert ids[0] // 100 == task
        assert label == ids[0] % 100 % 2
    assert found.cut == sum(range(1, len(parts) + 1))
    assert found.left_out == sum(range(len(parts)))
    assert mixed(parts, seed).ids == found.ids


@given(st.lists(sizes, min_size=2, max_size=3), st.integers(0, 99))
@settings(deadline=None)
def test_every_beginning_holds_each_tasks_share(listed: list[list[int]], seed: int) -> None:
    parts = [part(task, lengths, classes=1) for task, lengths in enumerate(listed)]
    tasks = mixed(parts, seed).tasks
    for size in range(len(tasks) + 1):
        counts = Counter(tasks[:size])
        for task, lengths in enumerate(listed):
            assert abs(counts[task] - size * len(lengths) / len(tasks)) <= 1


def test_every_beginning_holds_each_tasks_and_each_classs_share() -> None:
    """Classes of equal size would have their turns task by task."""
    parts = [part(task, [1] * 120, classes) for task, classes in enumerate((10, 12))]
    found = mixed(parts, 1)
    classes = list(zip(found.tasks, found.labels.tolist(), strict=True))
    for kinds in (found.tasks, classes):
        whole = Counter(kinds)
        for size in range(len(kinds) + 1):
            counts = Counter(kinds[:size])
            assert all(abs(counts[k] - size * n / len(kinds)) <= 1 for k, n in whole.items())


@given(st.lists(sizes, min_size=2, max_size=3), st.data())
@settings(deadline=None)
def test_each_token_counts_as_much_as_any_other(
    listed: list[list[int]], data: st.DataObject
) -> None:
    found = mixed([part(task, lengths) for task, lengths in enumerate(listed)], 1)
    rows = data.draw(
        st.lists(st.integers(0, len(found.ids) - 1), min_size=1, max_size=8, unique=True)
    )
    mixture = MultiTask([cast(Trainable, Tokens(9 - task)) for task in range(len(listed))])
    whole = Tokens(1)
    assert mixture.weight(found, rows) == whole.weight(found, rows)
    loss = mixture.loss(None, found, rows)
    assert loss.item() == pytest.approx(whole.loss(None, found, rows).item(), rel=1e-5)
    assert loss.requires_grad
    assert mixture.eval_tokens == 9 - (len(listed) - 1)


def test_targets_go_with_their_rows() -> None:
    parts = [
        Encoded(((task, 1), (task, 2)), np.zeros(2, dtype=np.int64), ((task,), (task + 10,)))
        for task in range(2)
    ]
    found = mixed(parts, 5)
    for (task, number), targets in zip(found.ids, found.targets, strict=True):
        assert targets == (task if number == 1 else task + 10,)
