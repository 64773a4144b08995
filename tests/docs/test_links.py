"""Links of the documentation lead somewhere: files and anchors exist, and pages that the code names too."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import ROOT, name_of, pages

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
PAGE_IN_CODE = re.compile(r"\bdocs/[\w/-]+\.md\b|\b(?:README|CONTRIBUTING|CHANGELOG)\.md\b")
READERS = [*pages(), *sorted((ROOT / "examples").rglob("*.md"))]


def links(page: Path) -> list[str]:
    """Targets of the page's links, code left out."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    return [found["target"] for found in LINK.finditer(prose)]


def anchors(page: Path) -> set[str]:
    """The anchors that its headings have: lower case, spaces as hyphens, punctuation left out; repeats are numbered."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        seen = found.get(slug, 0)
        found[slug] = seen + 1
        if seen:
            found[f"{slug}-{seen}"] = 1
    return set(found)


@pytest.mark.parametrize("page", READERS, ids=[name_of(page) for page in READERS])
def test_relative_links_resolve(page: Path) -> None:
    """A link to a file of the repository leads to one, and its anchor to a heading."""
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert file.exists(), f"{target}: there is no {file.relative_to(ROOT)}"
        if anchor:
            assert anchor in anchors(file), f"{target}: {file.name} has {sorted(anchors(file))}"


def test_every_page_is_reached() -> None:
    """From the README every page can be reached by links."""
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        ahead += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if ":" not in target]
    assert set(pages()) <= reached, [name_of(page) for page in set(pages()) - reached]


def test_pages_that_the_code_names_exist() -> None:
    """A docstring or a message that sends people to a page names one that is there."""
    for folder in ("services", "controller_api", "learner_agent", "driver_cli", "examples", "scripts"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in (".py", ".html", ".js", ".sh", ""):
                for named in PAGE_IN_CODE.findall(file.read_text(encoding="utf-8")):
                    assert (ROOT / named).exists() or (file.parent / named).exists(), f"{file}: {named}"


def test_images_are_drawn_for_light_and_dark() -> None:
    """A picture in the documentation says what it shows, and has colours for both schemes."""
    images = sorted((ROOT / "docs" / "images").iterdir())
    assert images
    for image in images:
        text = image.read_text(encoding="utf-8")
        assert image.suffix == ".svg"
        assert "prefers-color-scheme: dark" in text
        assert "<title" in text
        assert "<desc" in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
