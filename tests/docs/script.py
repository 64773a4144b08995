"""A scenario of the documentation as one bash script: what a reader would type, in order, in several terminals."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.docs.clone import Clone
from tests.docs.pages import SHELL, Fence

PRELUDE = r"""
set -Eeuo pipefail
set -m  # each terminal is a process group of its own: it is ended whole
terminals=()
close_terminals() {
  for pid in ${terminals[@]+"${terminals[@]}"}; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  wait || true
}
trap close_terminals EXIT
trap 'exit 143' TERM
within() {  # TEXT FILE PID: wait until the file holds the text
  for _ in $(seq 600); do
    if grep -qF -- "$1" "$2"; then return 0; fi
    kill -0 -- "-$3" 2>/dev/null || break
    sleep 0.05
  done
  echo "it was never printed: $1"; tail -n 20 "$2"; return 1
}
healthy() {  # PID...: a terminal still runs, or ended well
  local pid
  for pid in "$@"; do
    kill -0 -- "-$pid" 2>/dev/null || wait "$pid" || { echo "a terminal ended with status $?"; return 1; }
  done
}
"""


def script_of(fences: Sequence[Fence], clone: Clone) -> str:
    """The script; the output of block at line N goes to `outputs/N`, that of a terminal to `outputs/N.log`."""
    steps = [_step(fence, clone.text(fence.body)) for fence in fences]
    return "\n".join([PRELUDE, f"cd {shlex.quote(str(clone.folder))}", "mkdir -p outputs", "here=$PWD", *steps, _END])


_END = """
healthy ${terminals[@]+"${terminals[@]}"}
echo '### all done'
"""


def _step(fence: Fence, body: str) -> str:
    told = f"echo '### {fence}'"
    if fence.verb in ("terminal", "watch"):
        return f"{told}\n{_terminal(fence, body)}"
    if fence.language in SHELL:
        return f"{told}\n{{\n{body}}} > $here/outputs/{fence.line}"
    return f"{told}\npython - > $here/outputs/{fence.line} <<'END_OF_BLOCK'\n{body}END_OF_BLOCK"


def _terminal(fence: Fence, body: str) -> str:
    log = f"$here/outputs/{fence.line}.log"
    lines = [f": > {log}", f"(\n{body}) > {log} 2>&1 &", "terminals+=($!)"]
    assert fence.marker is not None
    if (text := fence.marker.until) is not None:
        lines.append(f"within {shlex.quote(text)} {log} $!")
    if fence.verb == "watch":
        lines += ["kill -INT -- -$!", "wait $! || true", "unset 'terminals[-1]'"]
    return "\n".join(lines)


def put_files(fences: Sequence[Fence], clone: Clone) -> None:
    """Write the blocks that are files, and put in those that are lines of one."""
    for fence in fences:
        if fence.marker is None:
            continue
        body = clone.text(fence.body)
        if fence.verb == "file":
            target = clone.folder / fence.marker.rest
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(body, encoding="utf-8")
        elif fence.verb == "insert":
            name, _, anchor = fence.marker.rest.partition(" after ")
            _insert(clone.folder / name, anchor, body, fence)


def _insert(target: Path, anchor: str, body: str, fence: Fence) -> None:
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    found = [i for i, line in enumerate(lines) if line.strip().startswith(anchor)]
    assert found, f"{fence}: {target.name} has no line that begins with {anchor!r}"
    lines.insert(found[0] + 1, body)
    target.write_text("".join(lines), encoding="utf-8")
