"""A stand-in for nvidia-smi, as a driver of some version would have it answer."""

from __future__ import annotations

from pathlib import Path


def fake_nvidia_smi(folder: Path, driver: str, *capabilities: str, fails: str = "") -> Path:
    """The folder with an nvidia-smi for one GPU of each compute capability; one GPU that an old
    driver does not tell the capability of, if there are none. With `fails` it says that and fails.
    """
    folder.mkdir(exist_ok=True)
    rows = "\n".join(f"{driver}, {capability}" for capability in capabilities)
    unknown = 'Field "compute_cap" is not a valid field to query.'
    script = f"""#!/bin/sh
[ -z '{fails}' ] || {{ echo '{fails}'; exit 9; }}
case "$*" in
*compute_cap*) [ -n '{rows}' ] || {{ echo '{unknown}'; exit 2; }}; echo '{rows}';;
*) echo '{driver}';;
esac
"""
    tool = folder / "nvidia-smi"
    tool.write_text(script)
    tool.chmod(0o755)
    return folder
