"""A GGUF file expanded once into the format that trains, and kept in the user's cache."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from coralx.backends.protocol import Say
from coralx.data.builtin import Builtin
from coralx.errors import SetupError
from coralx.system.files import MANIFEST, cache_folder, write_folder


def expanded(path: Path, builtin: Builtin, say: Say) -> Path:
    """The folder with the model of a builtin's GGUF file, float32 weights in safetensors.

    Made on first use, by one process at a time. Raises SetupError where the reader is missing.
    """
    folder = cache_folder() / f"{path.stem}-{version(builtin.package)}"
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not (folder / MANIFEST).is_file():  # written last: the folder is complete
            if find_spec("gguf") is None:
                raise SetupError(
                    f"the package 'gguf', which reads {path.name}, is not installed",
                    f"Install it: {builtin.install}",
                )
            say(f"expanding {path.name} into {folder}, once (half a minute)")
            write_folder(folder, lambda place: _expand(path, place))
    return folder


def _expand(path: Path, folder: Path) -> None:
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the weights are plain numbers now
    model = type(read)(config)  # what was read is marked as quantised, and cannot be saved
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    # The model's end token, which a tokenizer read from GGUF may lack.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.save_pretrained(folder)
