"""Trains under a real limit of memory, in a process of its own.

    python tests/support/memory_limit.py CONFIG.json FOLDER SPARE_MIB

Prepares the PEFT backend, trains a batch of all rows once, then again with so much memory to spare.
Prints what the second training brought as one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import psutil
import torch

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job


def main(config: Path, folder: Path, spare: int) -> dict[str, object]:
    """One step with plenty, one with little."""
    values = json.loads(config.read_text())
    rows = values["training"]["batch_size"]
    backend = create("peft")
    backend.prepare(parse_config(values, "limit"), "fp32", 1, lambda text: None)  # noqa: ARG005

    def train(name: str, batch: int) -> dict[str, object]:
        genome = Genome("g00-00-aaaa", 0, Genes(rank=4, batch_size=batch))
        job = Job(genome, name, 0, 1, Horizon(4, 0), 1.0, str(folder / name), eval_limit=8)
        result = backend.train(job, lambda said: None)  # noqa: ARG005
        return {"micro_batch": result.micro_batch, "loss": result.metrics["train_loss"]}

    torch.backends.mkldnn.enabled = False  # it reports a shortage without calling it one
    train("warm", 4)
    limit = psutil.Process().memory_info().vms + (spare << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    little = train("little", rows)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"little": little, "plenty": train("plenty", rows)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
