"""Whether an output that a page shows is what was printed: the same lines in order, numbers and ids aside."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.docs.pages import Fence

CHANGING = re.compile(r"[0-9a-f]{16,}|\d+(?:\.\d+)?|[▁▂▃▄▅▆▇█]+|\s+")
LEFT_OUT = ("…", "...")


def assert_shown(fence: Fence, printed: str) -> None:
    """Fail unless the block shows (a part of) what was printed."""
    if fence.language == "json":
        _same_shape(fence, json.loads(fence.body), json.loads(printed.splitlines()[-1]), "")
        return
    rest = iter([_plain(line) for line in printed.replace("\r", "").splitlines()])
    for line in fence.body.splitlines():
        if line.strip() in ("", *LEFT_OUT):
            continue
        want = _plain(line)
        assert any(_matches(want, got) for got in rest), f"{fence}: not printed (in this order): {line}\n{printed}"


def _plain(line: str) -> str:
    return CHANGING.sub(lambda found: " " if found[0].isspace() else "#", line.rstrip()).strip()


def _matches(want: str, got: str) -> bool:
    """A line that ends in … is shown up to there."""
    return got.startswith(want[:-1].rstrip("#")) if want.endswith(LEFT_OUT[0]) else got == want


def _same_shape(fence: Fence, shown: Any, printed: Any, where: str) -> None:
    if isinstance(shown, dict):
        assert isinstance(printed, dict), f"{fence}: {where or 'the document'} is {printed!r}"
        for key, value in shown.items():
            assert key in printed, f"{fence}: {where}.{key} was not printed; there is {list(printed)}"
            _same_shape(fence, value, printed[key], f"{where}.{key}")
    elif isinstance(shown, list):
        assert isinstance(printed, list), f"{fence}: {where} is {printed!r}"
        for one, got in zip(shown, printed, strict=False):
            _same_shape(fence, one, got, where)
    elif isinstance(shown, str):
        assert isinstance(printed, str), f"{fence}: {where} is {printed!r}"
        assert shown.endswith(LEFT_OUT) or _plain(shown) == _plain(printed), f"{fence}: {where} is {printed!r}"
    else:
        assert type(shown) is type(printed), f"{fence}: {where} is {printed!r}"
