"""What the environment and the command line of a process name."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.process import code_named, secret, secret_of_file, switched_on


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METIS_ONE", "METIS_ONE_FILE", "METIS_TWO", "METIS_TWO_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_secret_is_read_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable first, then the file that `<variable>_FILE` names, without its last newline."""
    (tmp_path / "token").write_text("from-a-file\n")
    assert secret("METIS_ONE") is None
    monkeypatch.setenv("METIS_ONE_FILE", str(tmp_path / "token"))
    assert secret("METIS_ONE") == "from-a-file"
    monkeypatch.setenv("METIS_ONE", "from-the-variable")
    assert secret("METIS_ONE") == "from-the-variable"


def test_the_first_variable_that_is_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they are asked for."""
    monkeypatch.setenv("METIS_TWO", "second")
    assert secret("METIS_ONE", "METIS_TWO") == "second"
    monkeypatch.setenv("METIS_ONE", "first")
    assert secret("METIS_ONE", "METIS_TWO") == "first"


@pytest.mark.parametrize(("content", "why"), [(None, "nowhere"), (b" \n", "empty"), (b"\xff\xfe", "not a text file")])
def test_a_file_that_holds_no_secret_is_named(
    content: bytes | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable that named it."""
    file = tmp_path / "nowhere"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("METIS_ONE_FILE", str(file))
    with pytest.raises(ValueError, match=f"METIS_ONE_FILE: .*{why}"):
        secret("METIS_ONE")
    with pytest.raises(ValueError, match=str(file)):
        secret_of_file(file)


@pytest.mark.parametrize(("told", "means"), [("1", True), ("Yes", True), ("on", True), ("false", False), ("", False)])
def test_a_switch(told: str, means: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that a flag of a command takes from its variable; off when it is not set."""
    assert switched_on("METIS_ONE") is False
    monkeypatch.setenv("METIS_ONE", told)
    assert switched_on("METIS_ONE") is means


def test_a_switch_takes_no_other_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error is not taken for no."""
    monkeypatch.setenv("METIS_ONE", "ture")
    with pytest.raises(ValueError, match="METIS_ONE: write true or false"):
        switched_on("METIS_ONE")


def test_code_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m` would; a spec of another form is told what to write."""
    (tmp_path / "home_made_code.py").write_text("def factory():\n    return 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_named("home_made_code:factory", "a:b")() == 42
    for spec in ("home_made_code", ":factory", "home_made_code:"):
        with pytest.raises(ValueError, match="module:factory, for example a:b"):
            code_named(spec, "a:b")
    with pytest.raises(AttributeError):
        code_named("home_made_code:nothing", "a:b")
