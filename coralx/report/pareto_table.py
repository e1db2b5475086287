"""The front as a table for spreadsheets: `pareto.csv`."""

from __future__ import annotations

import csv
import io
from typing import Any

from coralx.records.genomes import ALL_LAYERS
from coralx.report.derived import origin_of


def pareto_csv(report: dict[str, Any]) -> str:
    """The front as a table: genome, genes, each objective on validation and test, steps; the
    weighted sum where the config has weights; whether the figures are simulated; where members
    were not trained, how they were derived, in words; and where not all adapt all layers, which."""
    metrics = [objective["metric"] for objective in report["objectives"]]
    genes = list(report["front"][0]["genes"]) if report["front"] else []
    genes = [name for name in genes if name != "layers"]  # columns keep their places
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{split}_{metric}" for metric in metrics for split in ("validation", "test")]
    columns += ["own_steps", "lineage_steps"]
    weighted = report.get("weighted")
    scores = {row["genome"]: row["score"] for row in weighted["scores"]} if weighted else {}
    if weighted:
        columns.append("weighted_sum")
    columns.append("simulated")
    origins = {member["genome"]: origin_of(member, report) for member in report["front"]}
    has_derived = any(origins.values())
    if has_derived:
        columns.append("derived")
    has_layers = any(m["genes"].get("layers", ALL_LAYERS) != ALL_LAYERS for m in report["front"])
    if has_layers:
        columns.append("layers")
    writer.writerow(["genome", "generation", *genes, *columns])
    for member in report["front"]:
        values = []
        for metric in metrics:
            test = (member["test"] or {}).get(metric) or {}
            values += [member["validation"].get(metric), test.get("value")]
        own = [member["genes"][name] for name in genes]
        listed = [" ".join(value) if isinstance(value, list) else value for value in own]
        values += [member["own_steps"], member["lineage_steps"]]
        if weighted:
            values.append(scores[member["genome"]])
        values.append(str(report["simulated"]).lower())
        if has_derived:
            values.append(origins[member["genome"]])
        if has_layers:
            values.append(member["genes"]["layers"])
        row = [member["genome"], member["generation"], *listed, *values]
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A value that a spreadsheet does not take for a formula: text that would begin one stands
    behind an apostrophe (OWASP, CSV injection). Numbers stay numbers."""
    is_formula = isinstance(value, str) and value[:1] in tuple("=+-@\t\r\n")
    return f"'{value}" if is_formula else value
