"""A base that brings Python files along: none is run but on the config's word, and then with a
warning. And weights that are pickled: never read."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import coralx_here

CODE = """\
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

Path({marker!r}).write_text("the code ran")

class OwnConfig(BertConfig):
    model_type = "own-kind"

class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


@pytest.fixture
def place(
    tmp_path: Path, tiny_base: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with own.yaml, whose base is read by a Python file that leaves a mark; transformers
    keeps its copies of code there."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    base = shutil.copytree(tiny_base, tmp_path / "base")
    described = json.loads((base / "config.json").read_text())
    described["model_type"] = "own-kind"
    described["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForSequenceClassification": "own.OwnModel",
    }
    (base / "config.json").write_text(json.dumps(described))
    (base / "own.py").write_text(CODE.format(marker=str(tmp_path / "mark")))
    tiny_config["model"]["base"] = str(base)
    tiny_config["evolution"] = {"population_size": 2, "generations": 1}
    stage = {"name": "S0", "epoch_budget": 1, "data_percentage": 10, "survival_rate": 1}
    tiny_config["hyperband_config"] = {"training_stages": [stage]}
    tiny_config["runtime"]["executor"] = "in-process"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tiny_config))
    return tmp_path


def test_code_of_a_base_is_not_run_unless_the_config_says_so(place: Path) -> None:
    output = coralx_here(place, "evolve", "own.yaml", code=2)
    assert "custom code" in output
    assert "--set model.trust_remote_code=true" in output
    assert not (place / "mark").exists()
    assert not (place / "runs").exists()
    assert not (place / "modules").exists()


def test_trusted_code_is_run_and_a_warning_says_what_that_means(place: Path) -> None:
    trusting = ("own.yaml", "--set", "model.trust_remote_code=true")
    told = "model.trust_remote_code is on: Python files"
    assert told in coralx_here(place, "validate", *trusting)
    assert not (place / "mark").exists()
    output = coralx_here(place, "evolve", *trusting)
    assert output.index(told) < output.index("precision")  # before anything is loaded
    assert "with your rights" in output
    assert (place / "mark").read_text() == "the code ran"
    report = json.loads((place / "runs" / "tiny" / "report.json").read_text())
    assert report["warnings"][0].startswith(told)
    refused = coralx_here(
        place, "evolve", "--resume", "tiny", "--set", "model.trust_remote_code=false", code=2
    )
    assert "differs" in refused


def test_pickled_weights_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    import torch

    from coralx.config import parse_config
    from coralx.errors import ConfigError
    from coralx.training.base_model import load

    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")
    config = parse_config({"model": {"base": str(base)}}, "config")
    with pytest.raises(ConfigError, match="safetensors") as caught:
        load(config, ["a", "b"], torch.device("cpu"), torch.float32, print)
    assert "no pickled weights" in caught.value.hint
