"""The pages of the site and their order: each is a document of the repository, or generated."""

from collections.abc import Iterator

from website import api, methods

METHODS = "@methods"
API = "@api"

NAVIGATION: dict[str, dict[str, str]] = {
    "Start": {"Start": "README.md"},
    "The paper": {
        "Beside its code": "docs/paper.md",
        "Open points": "docs/readings.md",
        "Results": "results/README.md",
    },
    "Methods": {
        "All": "docs/methods.md",
        "At their best": "docs/fair-best.md",
        "Under attack": "docs/robustness.md",
        METHODS: "",
        "Add a method": "docs/add-a-method.md",
    },
    "Guides": {
        "Training": "docs/training.md",
        "Your data": "docs/your-data.md",
        "Your SpikingJelly, snnTorch, Norse model": "docs/attach.md",
        "Why are my neurons dead?": "docs/dead.md",
        "To a chip": "docs/deploy.md",
    },
    "Speed, GPU": {"Speed and GPU": "docs/speed.md", "Benchmarks": "benchmarks/README.md"},
    "Reproducibility": {
        "Reproduce a run": "docs/reproduce.md",
        "Guarantees": "docs/guarantees.md",
        "Reliability": "docs/reliability.md",
        "Before the first step": "docs/alive.md",
        "256 images": "docs/overfit.md",
    },
    "Inside": {
        "Map": "docs/map.md",
        "Operations": "src/rmploss/ops/README.md",
        "The LIF operation": "src/rmploss/ops/lif/README.md",
        "Native kernels": "native/README.md",
        "Decisions": "docs/decisions.md",
        "Log": "docs/log.md",
        "Changes": "CHANGELOG.md",
        "Contributing": "CONTRIBUTING.md",
    },
    "API": {API: ""},
}
"""Section -> title -> document, relative to the repository; "@..." stands for generated pages."""


def documents() -> dict[str, str]:
    """Each document of the repository that is a page -> its place in the site."""
    return {
        document: _place(document)
        for titles in NAVIGATION.values()
        for document in titles.values()
        if document
    }


def navigation() -> str:
    """`NAVIGATION` with the generated pages, as a TOML value."""
    sections = []
    for section, titles in NAVIGATION.items():
        entries = [_entry(*pair) for title in titles for pair in _titled(title, titles[title])]
        single = len(entries) == 1
        sections.append(entries[0] if single else f'{{ "{section}" = [{", ".join(entries)}] }}')
    return f"[{', '.join(sections)}]"


def _titled(title: str, document: str) -> Iterator[tuple[str, str]]:
    if title == METHODS:
        yield from methods.titles().items()
    elif title == API:
        yield from api.titles().items()
    else:
        yield title, _place(document)


def _entry(title: str, place: str) -> str:
    return f'{{ "{title}" = "{place}" }}'


def _place(document: str) -> str:
    """docs/speed.md is speed.md, native/README.md is native.md, README.md is index.md."""
    name = document.removeprefix("docs/").removeprefix("src/rmploss/").lower()
    return name.replace("/readme.md", ".md").replace("/", "-").replace("readme.md", "index.md")
