"""The model card (README.md) of a UQFF export, which the hub shows with its files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(name: str, report: Mapping[str, Any]) -> str:
    """Return the text of the card.

    Args:
        name: display name of the model.
        report: contents of uqff_report.json.
    """
    base = report.get("base_model")
    place = report.get("repo_id", ".")
    first = report["outputs"][0]["quant"]
    head = [
        "---",
        *([f"base_model: {base}", "base_model_relation: quantized"] if base else []),
        "tags:",
        "- uqff",
        "---",
    ]
    of = f" of [{base}](https://huggingface.co/{base})" if base else ""
    rows = [
        f"| {output['quant']} | {', '.join(output['shards'])} | {_counts(output['actual_counts'])} |"
        for output in report["outputs"]
    ]
    return "\n".join(
        (
            *head,
            "",
            f"# {name}, UQFF",
            "",
            f"Quantised weights{of} in UQFF {report['uqff_version']}, written by {report['generated_by']['tool']}.",
            "",
            "| type | files | layers |",
            "| --- | --- | --- |",
            *rows,
            "",
            "```sh",
            f"modelyard run -m {place} --from-uqff {first}",
            f"mistralrs run -m {place} --from-uqff {first}",
            "```",
            "",
        )
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.items())
