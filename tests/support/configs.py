"""Configs from text, and what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from coralx.config import Config, parse_config
from coralx.config.load import parse_yaml
from coralx.errors import ConfigError


def read(text: str) -> Config:
    return parse_config(parse_yaml(text, "test.yaml"), "test.yaml")


def problems_in(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.exit_code == 2
    return caught.value.problems


def only_problem_in(text: str) -> str:
    problems = problems_in(text)
    assert len(problems) == 1, problems
    return problems[0]


def schedule(*stages: str) -> str:
    lines = "".join(f"    - {{{stage}}}\n" for stage in stages)
    return f"hyperband_config:\n  training_stages:\n{lines}"


labels = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(["no", "yes", "0", "1e3", "null", "~", "", "a: b", "é", "true"]),
        min_size=2,
        max_size=4,
        unique=True,
    ),
)
