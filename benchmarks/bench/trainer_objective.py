"""A configuration trained by plain `transformers.Trainer` and PEFT, as their documentation does it.

The naive contestant and all searches of others train by this. Nothing of CoralX is in it but the
rows. `train` evaluates on validation after the steps that it is told, and asks whether to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from sklearn.metrics import roc_auc_score
from trainer_callbacks import GoOn, Rungs, Stopwatch, always
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging
from workloads import DEFAULT, Genes, Setting, Workload, modules_of

from coralx.training.base_source import locate_base

logging.set_verbosity_error()
logging.disable_progress_bar()

EVAL_BATCH = 64
IGNORED = -100
"""The label of tokens that are not learnt, in transformers."""


class Objective:
    """Rows, tokenised once, and what a configuration is trained with."""

    def __init__(self, setting: Setting, threads: int) -> None:
        torch.set_num_threads(threads)
        self.setting, self.workload = setting, Workload(setting)
        self.base = locate_base(self.workload.config, print).path
        self.tokenizer = AutoTokenizer.from_pretrained(self.base)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.classifies = self.workload.config.model.task == "sequence-classification"
        encode = self._texts if self.classifies else self._prompts
        self.data = {name: encode(rows) for name, rows in self.workload.rows.splits.items()}
        kind = DataCollatorWithPadding if self.classifies else DataCollatorForTokenClassification
        self.collator = kind(self.tokenizer)

    # -- rows ------------------------------------------------------------------------------------

    def _texts(self, rows: Sequence[Any]) -> Dataset:
        length = self.workload.config.model.max_length
        encoded = self.tokenizer([row.text for row in rows], truncation=True, max_length=length)
        return Dataset.from_dict({**encoded, "labels": [row.label for row in rows]})

    @property
    def words(self) -> list[int]:
        """The label words' tokens, one each."""
        names = [f" {name}" for name in self.workload.rows.labels]
        tokens = [self.tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
        if any(len(ids) != 1 for ids in tokens):
            raise SystemExit("bench: this objective is for label words of one token")
        return [ids[0] for ids in tokens]

    def _prompts(self, rows: Sequence[Any]) -> Dataset:
        """Prompts with the label word behind; only that is learnt."""
        words, columns = self.words, dict[str, list[list[int]]](input_ids=[], labels=[])
        for row in rows:
            prompt = self._prompt(row.text)
            columns["input_ids"].append([*prompt, words[row.label]])
            columns["labels"].append([IGNORED] * len(prompt) + [words[row.label]])
        masks = [[1] * len(ids) for ids in columns["input_ids"]]
        return Dataset.from_dict({**columns, "attention_mask": masks})

    def _prompt(self, text: str) -> list[int]:
        """At most one token less than the limit: words are taken off the text's end."""
        words = text.split(" ")
        for end in range(len(words), -1, -1):
            kept = text if end == len(words) else " ".join(words[:end])
            filled = self.workload.source.prompt.rstrip(" ").replace("{text}", kept)
            ids: list[int] = self.tokenizer(filled)["input_ids"]
            if len(ids) < self.workload.config.model.max_length:
                return ids
        raise SystemExit("bench: the prompt alone is longer than model.max_length")

    # -- the model -------------------------------------------------------------------------------

    def base_model(self) -> Any:
        if self.classifies:
            classes = len(self.workload.rows.labels)
            auto, options = AutoModelForSequenceClassification, {"num_labels": classes}
        else:
            auto, options = AutoModelForCausalLM, {}
        return auto.from_pretrained(self.base, dtype=torch.float32, **options)

    def model(self, genes: Genes) -> Any:
        config = LoraConfig(
            task_type="SEQ_CLS" if self.classifies else "CAUSAL_LM",
            r=genes["rank"],
            lora_alpha=genes["alpha_ratio"] * genes["rank"],
            lora_dropout=genes["dropout"],
            target_modules=modules_of(genes),
        )
        return get_peft_model(self.base_model(), config)

    def arguments(self, genes: Genes, folder: Path, **more: Any) -> TrainingArguments:
        training = self.workload.config.training
        return TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=self.workload.epochs,
            per_device_train_batch_size=self.workload.batch_size,
            per_device_eval_batch_size=EVAL_BATCH,
            learning_rate=genes["learning_rate"],
            lr_scheduler_type=training.lr_schedule,
            warmup_steps=training.warmup_ratio,  # below 1: a share of all steps
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            bf16=self.setting.precision == "bf16",
            use_cpu=True,
            seed=self.setting.seed,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            include_num_input_tokens_seen="non_padding",
            **more,
        )

    # -- training --------------------------------------------------------------------------------

    def train(
        self,
        genes: Genes,
        folder: Path,
        rungs: Sequence[int] = (),
        go_on: GoOn = always,
        *,
        resume: Path | None = None,
        keeps: bool = False,
    ) -> Any:
        """Train to the end, or until `go_on` says no at one of the `rungs` (in steps); the last
        step is one. Begins at the Trainer's checkpoint `resume`; `keeps` one where it ends early.
        The model."""
        set_seed(self.setting.seed)
        model = self.model(genes)
        watch = Rungs([*rungs, self.workload.total_steps], model, go_on, keeps=keeps)
        trainer = self._trainer(model, self.arguments(genes, folder), watch)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        return model

    def _trainer(self, model: Any, arguments: TrainingArguments, watch: TrainerCallback) -> Trainer:
        return Trainer(
            model=model,
            args=arguments,
            train_dataset=self.data["train"],
            eval_dataset=self.data["validation"],
            data_collator=self.collator,
            processing_class=self.tokenizer,
            compute_metrics=self._metrics,
            preprocess_logits_for_metrics=None if self.classifies else self._word_logits,
            callbacks=[watch],
        )

    def _metrics(self, predicted: Any) -> dict[str, float | None]:
        labels = predicted.label_ids
        if not self.classifies:
            labels = (labels == self.words[1]).any(axis=1).astype(int)
        return {"auroc": auroc(predicted.predictions, labels)}

    def _word_logits(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of each row, the label words' logits where the word is predicted."""
        places = (labels != IGNORED).int().argmax(dim=1) - 1
        return logits[torch.arange(len(labels)), places][:, self.words]

    def piece(self) -> dict[str, float]:
        """Wall and CPU seconds of the fixed piece of naive training, after a warm-up."""
        steps = self.workload.piece_steps
        warm = max(2, steps // 4)
        stopwatch = Stopwatch(warm)
        set_seed(0)
        arguments = self.arguments(DEFAULT, Path(self.setting.folder), max_steps=warm + steps)
        self._trainer(self.model(DEFAULT), arguments, stopwatch).train()
        return stopwatch.read()

    # -- scoring ---------------------------------------------------------------------------------

    def score(self, model: Any, split: str) -> float | None:
        """AUROC on a split, in float32, in batches of rows of like length."""
        data, logits, labels = self.data[split], [], []
        order = np.argsort([len(ids) for ids in data["input_ids"]], kind="stable")
        model.eval()
        for start in range(0, len(order), EVAL_BATCH):
            rows = [data[int(row)] for row in order[start : start + EVAL_BATCH]]
            batch = self.collator(rows)
            own = batch.pop("labels")
            with torch.no_grad():
                out = model(**batch).logits
            if not self.classifies:
                out, own = self._word_logits(out, own), (own == self.words[1]).any(dim=1)
            logits.append(out.double().numpy())
            labels.append(own.int().numpy())
        return auroc(np.concatenate(logits), np.concatenate(labels))

    def saved(self, adapter: str) -> Any:
        """The base with an adapter in PEFT's format."""
        return PeftModel.from_pretrained(self.base_model(), adapter)


def auroc(logits: Any, labels: Any) -> float | None:
    """Of two classes, from a logit each; None where one is not finite."""
    margin = np.asarray(logits, dtype=np.float64)
    margin = margin[:, 1] - margin[:, 0]
    return float(roc_auc_score(labels, margin)) if np.isfinite(margin).all() else None
