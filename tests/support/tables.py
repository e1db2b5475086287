"""Tables that tests write, and what is read from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coralx.config import parse_config
from coralx.config.tables import Column, Table
from coralx.data.reading import read_table
from coralx.errors import ConfigError


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def problems_of(data: dict[str, Any], task: str = "sequence-classification") -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"task": task}, "data": data}, "test.yaml")
    return caught.value.problems


class Given:
    """Files with some content, and what is read from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []

    def file(self, name: str, content: str, encoding: str = "utf-8") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode(encoding))
        return path

    def texts(
        self, path: Path, *columns: Column, key: str = "data.train", **settings: Any
    ) -> list[list[str]]:
        """Rows of the named columns."""
        wanted = columns or ("text", "label")
        self.warnings.clear()
        read = read_table(Table(**settings), str(path), key, wanted, self.warnings)
        cells = [read.texts(read.column(column, "data.text")) for column in wanted]
        return [list(row) for row in zip(*cells, strict=True)]

    def refusal(self, path: Path, **settings: Any) -> tuple[str, str]:
        with pytest.raises(ConfigError) as caught:
            self.texts(path, **settings)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{settings.get('key', 'data.train')}: {path}"), problem
        return problem.removeprefix(f"{settings.get('key', 'data.train')}: {path}"), (
            caught.value.hint
        )
