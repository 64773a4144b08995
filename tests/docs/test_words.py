"""The words of the documentation: nothing of one machine, no strange hosts, nothing left to be done, no decoration."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import ROOT, name_of, pages

HOSTS = {"localhost", "127.0.0.1", "example.org", "semver.org"}
FOLDERS = ("v1", "docs", "openapi.json", "healthz", "readyz", "metrics", "static", "errors", "tmp", "dev", "federation")
ABSOLUTE = re.compile(r"(?<![\w.…*<>)}/~$])/(?!/)(?P<first>[A-Za-z][\w.-]*)")
URL = re.compile(r"https?://[^\s)>\"'`|]+")
LEFT = re.compile(r"\b(?:TODO|FIXME|XXX|TBD|WIP|lorem|ipsum)\b", re.IGNORECASE)
NOISE = re.compile(r"\b(?:blazing|cutting-edge|seamless\w*|leverag\w+|revolutionar\w+|world-class)\b", re.IGNORECASE)
WRITTEN = [*pages(), *sorted((ROOT / "examples").rglob("*.md"))]
CURVE = "▁▂▃▄▅▆▇█┤└─"  # what the driver draws


@pytest.fixture(params=WRITTEN, ids=[name_of(page) for page in WRITTEN])
def page(request: pytest.FixtureRequest) -> Path:
    """Each page."""
    found: Path = request.param
    return found


def test_no_machine_paths(page: Path) -> None:
    """An absolute path is one of the controller's, or one that every machine has; a home is written ~."""
    text = URL.sub("", page.read_text(encoding="utf-8"))
    for line in text.splitlines():
        for found in ABSOLUTE.finditer(line):
            known = found["first"] in FOLDERS or any(word in line for word in ("docker", "location /", "-subj"))
            assert known, f"{name_of(page)}: {line}"


def test_hosts_are_known(page: Path) -> None:
    """A link outwards goes to a host that was looked at and allowed."""
    for url in URL.findall(page.read_text(encoding="utf-8")):
        assert urlsplit(url.rstrip(".,;")).hostname in HOSTS, f"{name_of(page)}: {url}"


def test_nothing_is_left_to_be_written(page: Path) -> None:
    """No page says that a part of it is still to come, and none is empty."""
    text = page.read_text(encoding="utf-8")
    assert len(text) > 200
    assert not (found := LEFT.search(text)), found


def test_plain_words(page: Path) -> None:
    """No advertisement and no pictograms; of signs only those that say something."""
    text = page.read_text(encoding="utf-8")
    assert not (found := NOISE.search(text)), found
    odd = {sign for sign in text if unicodedata.category(sign) in ("So", "Cs", "Co", "Sk") and sign not in CURVE + "`^"}
    assert not odd, odd


def test_lines_fit(page: Path) -> None:
    """Prose is wrapped at 120 columns; tables, links and blocks may be longer."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        inside ^= line.strip().startswith("```")
        if not inside and not line.lstrip().startswith(("|", "```", "!", "<!--")):
            assert len(line) <= 120, f"{name_of(page)}:{number}: {len(line)} columns"
