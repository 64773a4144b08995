"""What others wrote, as a terminal may show it."""

from __future__ import annotations

from services.process.terminal import plain, plain_entry, plain_line

CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]
BIDI = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]


def test_controls_and_bidirectional_marks_are_written_out() -> None:
    """C0, C1 and all that turns a line around; what a text of lines needs stays in one."""
    for one in (*CONTROLS, *BIDI):
        assert plain_line(f"a{one}b") == f"a{one!r}b".replace("'", "")
        assert plain(f"a{one}b") == (f"a{one}b" if one in "\n\t" else plain_line(f"a{one}b"))


def test_everything_else_is_shown_as_it_is() -> None:
    """Other scripts, combined characters, blocks of a curve, back-slashes; what was written out stays so."""
    text = "Jürgen 李明 שלום عمر 👩🏽‍🔬 ▁▂▃ e\u0301 C:\\new \\x1b"
    assert plain(text) == plain_line(text) == text
    assert plain(plain("\x9b2J")) == "\\x9b2J"


def test_an_entry_of_a_log() -> None:
    """Words in one line; a traceback keeps its own."""
    entry = {"event": "a\nb", "why": "\x9b2J", "count": 3, "exception": "Traceback\n  \u202ehere"}
    assert plain_entry(None, "info", entry) == {
        "event": "a\\nb",
        "why": "\\x9b2J",
        "count": 3,
        "exception": "Traceback\n  \\u202ehere",
    }
