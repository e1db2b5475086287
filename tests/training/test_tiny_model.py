"""The small random Llama that checks and tests train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from coralx.training import tiny_model as specimen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specimen")
    specimen.main([str(path)])
    return path


def test_its_tokenizer_knows_texts_labels_and_prompts(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"negative", "positive"}
    for row in rows[:20]:
        ids = tokenizer(f"Text : {row['text']}\nLabel : {row['label']}").input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
    assert len(tokenizer(" negative", add_special_tokens=False).input_ids) == 1
    messages = [{"role": "user", "content": "the film"}, {"role": "assistant", "content": "good"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.split() == "<s> user : the film </s> <s> assistant : good </s>".split()
    asked = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert asked.split() == "<s> user : the film </s> <s> assistant :".split()
    assert tokenizer.unk_token_id not in tokenizer(text, add_special_tokens=False).input_ids


def test_it_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    specimen.write_model(tmp_path / "again")
    first, again = folder / "model" / "model.safetensors", tmp_path / "again" / "model.safetensors"
    assert first.read_bytes() == again.read_bytes()


def test_an_adapter_learns_the_labels(folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", local_files_only=True)
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    encoded = tokenizer([r["text"] for r in rows], padding=True, return_tensors="pt")
    answers = tokenizer.convert_tokens_to_ids([row["label"] for row in rows])
    last = encoded.attention_mask.sum(1) - 1
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)

    def loss() -> torch.Tensor:
        logits = model(**encoded).logits[torch.arange(len(rows)), last]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(answers))

    untrained = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.2 < untrained
