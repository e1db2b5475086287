"""Score adapters without CoralX: `plain_peft.py BASE ROWS MAX_LENGTH ADAPTER...`.

ROWS is a JSON list of [text, label]. Prints each adapter's AUROC, by transformers, PEFT and
scikit-learn alone; row by row, so that no padding can matter.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base, rows, max_length, *adapters = sys.argv[1:]
texts, labels = zip(*json.loads(Path(rows).read_text()), strict=True)
tokenizer = AutoTokenizer.from_pretrained(base)
for adapter in adapters:
    labels_in_order = json.loads((Path(adapter) / "coralx.json").read_text())["labels"]
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=dict(enumerate(labels_in_order))
    )
    model = PeftModel.from_pretrained(model, adapter).eval()
    scores = []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=int(max_length))
        with torch.no_grad():
            scores.append(model(**batch).logits.softmax(-1)[0, 1].item())
    print(roc_auc_score(labels, scores))
assert not any(name.startswith("coralx") for name in sys.modules)
