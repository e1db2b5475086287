"""What is told of adapters to those who publish or serve them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coralx.config.input_files import public_name
from coralx.report.vllm import serving_line, serving_of
from tests.support.factories import make_config


@pytest.mark.parametrize(
    ("base", "called"),
    [
        ("org/model", "org/model"),
        ("models/mine", "models/mine"),
        ("/home/someone/secret-project/llama-8b", "llama-8b"),
        ("/data/hub/models--org--model/snapshots/0123abcd", "org/model"),
        ("/data/hub/models--gpt2/snapshots/0123abcd", "gpt2"),
    ],
)
def test_a_base_is_published_without_the_path_to_it(base: str, called: str) -> None:
    assert public_name(base) == called


def member(genome: str, rank: int, *, dora: bool = False) -> dict[str, Any]:
    genes = {"rank": rank, "use_dora": dora}
    return {"genome": genome, "genes": genes, "adapter": f"best/{genome}"}


@pytest.mark.parametrize(
    ("front", "line"),
    [
        ([member("a", 4), member("b", 16)], "vLLM can serve them (--enable-lora)."),
        (
            [member("a", 4), member("b", 24)],
            "vLLM can serve them (--enable-lora --max-lora-rank 32).",
        ),
        (
            [member("a", 4), member("b", 32, dora=True), member("c", 600)],
            "vLLM can serve them (--enable-lora), except b (DoRA), c (rank 600).",
        ),
        ([member("a", 4, dora=True)], "vLLM can serve none of them: a (DoRA)."),
        ([member("a", 4) | {"adapter": None}], None),
    ],
)
def test_the_report_says_what_vllm_needs_for_the_front(
    front: list[dict[str, Any]], line: str | None
) -> None:
    config = make_config(model={"base": "org/model", "task": "sft"})
    assert serving_line({"vllm": serving_of(config, front)}) == line


def test_vllm_is_no_matter_of_classification_heads() -> None:
    config = make_config(model={"base": "org/model"})
    assert serving_line({"vllm": serving_of(config, [member("a", 4)])}) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lm_head", r"'lm_head' is the output layer, which is not adapted: .*; LoRA can adapt"),
        ("classifier", r"'classifier' names an output layer, and none is adapted"),
        ("embed_tokens", "'embed_tokens' is not a linear layer but Embedding; .*all-linear"),
        ("q_prj", r"no linear module 'q_prj' \(did you mean 'q_proj'\?\)"),
    ],
)
def test_a_module_that_is_not_offered_is_told_why(
    name: str, why: str, causal_config: Callable[[str], dict[str, Any]]
) -> None:
    pytest.importorskip("torch")
    from coralx.config import parse_config
    from coralx.errors import ConfigError
    from coralx.training.footprint import footprint_without_weights

    config = causal_config("sft")
    config["search_space"]["target_modules"] = {"choices": [["q_proj", name], "all-linear"]}
    with pytest.raises(ConfigError, match=f"target_modules.choices.0: .*{why}"):
        footprint_without_weights(parse_config(config, "test"))


def test_a_classification_head_is_no_target(tiny_config: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    from coralx.config import parse_config
    from coralx.errors import ConfigError
    from coralx.training.footprint import footprint_without_weights

    tiny_config["search_space"]["target_modules"] = {"choices": [["classifier"]]}
    with pytest.raises(ConfigError, match="'classifier' belongs to the classification head"):
        footprint_without_weights(parse_config(tiny_config, "test"))
