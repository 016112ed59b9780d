"""Sealed JSON: an object with the SHA-256 of all its other fields, which detects any change."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rmploss.engine.checkpoint.names import MANIFEST


class DamagedError(Exception):
    """The bytes on the disk differ from those that were written, or something is missing."""


def seal(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON with the SHA-256 of all its other fields, which detects any change."""
    unsealed = json.dumps(manifest, indent=1, allow_nan=False)
    digest = hashlib.sha256(unsealed.encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, indent=1, allow_nan=False) + "\n").encode()


def unseal(data: bytes) -> dict[str, Any]:
    """The manifest of `seal`, without its SHA-256; `DamagedError` if a byte of it differs."""
    try:
        manifest = json.loads(data)
        del manifest["sha256"]
        if seal(manifest) == data:
            return manifest
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DamagedError(f"{MANIFEST} is damaged: its SHA-256 differs")
