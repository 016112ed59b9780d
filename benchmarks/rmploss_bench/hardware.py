"""What a figure was measured on, for the rows of a CSV and the name of its file."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rmploss import ops
from rmploss.engine.environment import environment
from rmploss_bench.case import cpus

NOISE = r"\((R|TM)\)|\b(AMD|Intel|NVIDIA|CPU|Processor|\d+-Core)\b|@.*"
"""What a model's name says besides the model."""


def processor() -> str:
    """The model of the CPU."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def hardware(device: str) -> str:
    """The device in words: "2x AMD EPYC" or "NVIDIA H100"."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{cpus()}x {processor()}"


def label(device: str) -> str:
    """The device in a file name: "2xEPYC"."""
    model = hardware(device) if device.startswith("cuda") else processor()
    words = re.sub(NOISE, " ", model).split()
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(words)) or "unknown"
    return name if device.startswith("cuda") else f"{cpus()}x{name}"


def facts(device: str) -> dict[str, str]:
    """Hardware and versions, the columns that every row shares."""
    found = environment()
    source = f"{found['rmploss']} {found['commit']}" if found["commit"] else str(found["rmploss"])
    return {
        "hardware": hardware(device),
        "cpus": str(cpus() if device == "cpu" else os.cpu_count()),
        "torch": str(found["torch"]),
        "backend": ops.describe(torch.device(device)),
        "rmploss": source,
    }


def package_version(contestant: str) -> str:
    """The version of a peer's package; "" for contestants that are none."""
    try:
        return version(re.split(r"[-+]", contestant)[0])
    except PackageNotFoundError:
        return ""
