"""The order of rows and batches by which runs of revision 1 go on: as it was, to the last row."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from coralx.config.data import Data
from coralx.data.order import Rows
from coralx.data.order_revision1 import Batches, stratified_order
from coralx.data.splits import load_examples


def digest(rows: Rows) -> str:
    return hashlib.sha256(np.asarray(rows, dtype=np.int64).tobytes()).hexdigest()[:16]


def test_orders_and_batches_are_those_of_earlier_versions() -> None:
    strata = [n * n % 7 % 3 for n in range(500)]
    order = stratified_order(strata, np.random.default_rng(1))
    assert digest(order) == "1724fd276a7437d7"
    lengths = [n * 37 % 23 for n in range(500)]
    batches = Batches(np.zeros(500, dtype=np.int64), lengths, 8, [25, 130, 500], 3)
    read = np.concatenate([batches.rows(step, 130) for step in range(40)])
    assert digest(read) == "c5f388dc6f1c6711"


def test_splits_are_those_of_earlier_versions(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"t{n},{n * n % 7 % 3}\n" for n in range(300)))
    data = Data(train=str(path), limit=99)
    old, new = (load_examples(data, 1, revision=revision) for revision in (1, 2))
    told = "\n".join(row.text for split in old.splits.values() for row in split)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "d338572b8ddcde00"
    assert old.train != new.train
