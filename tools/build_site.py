"""Build the documentation site: `python tools/build_site.py`, then open build/site/index.html.

Needs `pip install '.[docs]'`. Fails on a warning of the generator, a link that leads nowhere, and
a page that fetches anything from elsewhere. What is in the site: `website/pages.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from source_map import ROOT

try:
    from website import check, pages, stage
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed; type: pip install '.[docs]'")

BUILD = ROOT / "build"
SHIM = re.compile(r"https://[^\"\s]+/iframe-worker/shim")
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
    built = subprocess.run([*words, "--config-file", str(config)], check=False, cwd=folder)
    if built.returncode:
        sys.exit(f"The site is not built, for the reasons above. The pages are in {folder}/pages.")
    without_network(folder / "site")
    if found := [*check.problems(folder / "site")]:
        sys.exit("\n".join(found))


def without_network(site: Path) -> None:
    """Take the shim by which pages on a disk can search from a file of ours, not from a CDN."""
    for path in site.rglob("*.html"):
        ours = os.path.relpath(site / "worker.js", path.parent)
        text = path.read_text(encoding="utf-8")
        path.write_text(SHIM.sub(ours, text), encoding="utf-8")


if __name__ == "__main__":
    build(BUILD)
