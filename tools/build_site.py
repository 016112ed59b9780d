"""Build the documentation site: `python tools/build_site.py`, then open build/site/index.html.

Needs `pip install '.[docs]'`. Fails on a warning of the generator, a link that leads nowhere, and
a page that fetches anything from elsewhere. What is in the site: `website/pages.py`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from source_map import ROOT
from website import check, pages, stage

BUILD = ROOT / "build"
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the generator's offline mode has every page fetch."""


def build(folder: Path) -> None:
    """Build folder/site from folder/pages; exits with what is wrong."""
    for old in ("pages", "site"):
        shutil.rmtree(folder / old, ignore_errors=True)
    stage.stage(folder / "pages")
    text = (Path(stage.__file__).parent / "zensical.toml").read_text(encoding="utf-8")
    config = folder / "zensical.toml"
    config.write_text(text.replace('"@navigation"', pages.navigation()), encoding="utf-8")
    words = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    subprocess.run([*words, "--config-file", str(config)], check=True, cwd=folder)
    without_network(folder / "site")
    if found := [*check.problems(folder / "site")]:
        sys.exit("\n".join(found))


def without_network(site: Path) -> None:
    """Take the shim by which pages on a disk can search from a file of ours, not from a CDN."""
    for path in site.rglob("*.html"):
        ours = os.path.relpath(site / "worker.js", path.parent)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(SHIM, ours), encoding="utf-8")


if __name__ == "__main__":
    build(BUILD)
