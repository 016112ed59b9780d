"""The hardware and the versions of a measurement, for the rows of a CSV and its file name."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rmploss import ops
from rmploss.engine.environment import environment
from rmploss_bench.conditions import cpus

NOISE = r"\((R|TM)\)|\b(AMD|Intel|NVIDIA|CPU|Processor|\d+-Core)\b|@.*"
"""The parts of a processor's name that do not tell models apart."""


def processor() -> str:
    """The name of the CPU, as the system gives it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def hardware(device: str) -> str:
    """The device in words, for a row: "2x AMD EPYC" or "NVIDIA H100"."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{cpus()}x {processor()}"


def label(device: str) -> str:
    """The device in a file name: "2xEPYC" or "H100"."""
    model = hardware(device) if device.startswith("cuda") else processor()
    words = re.sub(NOISE, " ", model).split()
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(words)) or "unknown"
    return name if device.startswith("cuda") else f"{cpus()}x{name}"


def facts(device: str) -> dict[str, str]:
    """The columns that are the same in every row of a run: hardware and versions."""
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
    """The version of the package that a contestant belongs to; "" if it belongs to none."""
    try:
        return version(re.split(r"[-+]", contestant)[0])
    except PackageNotFoundError:
        return ""
