"""What the documentation lists is what the code has: settings, errors, calls, names, metrics, events, limits."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from controller_api.http import gate
from controller_api.http.gate import POLICIES
from controller_api.http.routes import tasks as hot
from controller_api.problems import status_of
from controller_api.runtime import Metrics, metrics
from controller_api.runtime import events as event_log
from controller_api.settings import Settings
from controller_api.transport import protocol as zero_copy
from controller_api.transport import receiver as receiving
from controller_api.transport import rest, uploads
from driver_cli.main import app as metis
from driver_cli.show.catalogue import markdown
from services import errors, failures, schedules
from services.aggregation import RULES
from services.algorithms import ALGORITHMS
from services.catalogue import entries
from services.config import RunConfig, resolve
from services.federation import plan, roster, run, runs
from services.federation import runs as uploaded
from services.federation.combinations import allowed
from services.optimizers import OPTIMIZERS
from services.scaling import SCALERS
from services.scheduling import SCHEDULERS
from services.selection import SELECTORS
from services.store import STORES
from services.transforms import TRANSFORMS
from services.weights import wire
from tests.docs.pages import ROOT, all_fences, table_under

PACKAGES = ("services", "controller_api", "learner_agent", "driver_cli", "examples")
NAME = re.compile(r"`([^`]+)`")


def code_of(*folders: str) -> str:
    """The Python of these folders."""
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


# ---- settings
def default_of(name: str) -> str:
    """A setting's default as the page writes it."""
    value = Settings.model_fields[name].default
    if value is None or value == ():
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_settings_of_the_controller() -> None:
    """Every setting stands in the table, in order, with its default."""
    shown = [(row[0], row[1]) for row in table_under("docs/deploying.md", "Settings")]
    assert shown == [(f"METIS_{name.upper()}", default_of(name)) for name in Settings.model_fields]


def test_every_variable_of_the_environment_is_documented() -> None:
    """A METIS_ variable that the code reads is named in docs/deploying.md, and the other way round."""
    page = set(re.findall(r"METIS_[A-Z_]+[A-Z]", (ROOT / "docs/deploying.md").read_text(encoding="utf-8")))
    code = set(re.findall(r"METIS_[A-Z_]+[A-Z]", code_of(*PACKAGES)))
    code |= {f"METIS_{name.upper()}" for name in Settings.model_fields}
    code |= {f"{name}_FILE" for name in code if name.endswith("_TOKEN")}
    assert page == code


# ---- the contract
def test_calls() -> None:
    """Every call stands in the table with the roles that may make it, and no other."""
    shown = {(row[0], row[1]): row[4] for row in table_under("docs/protocol.md", "Calls")}
    roles = {
        (method, path): ", ".join(sorted(policy.roles)) or "anyone"
        for path, methods in POLICIES.items()
        for method, policy in methods.items()
    }
    assert shown == roles


def test_calls_that_take_a_body() -> None:
    """Where the table shows a body one is taken, where it shows none it is refused."""
    for method, path, body, *_ in table_under("docs/protocol.md", "Calls"):
        media = POLICIES[path][method].media
        assert ("application/json" in media) == bool(re.search("[A-Z]", body)), path
        assert (wire.MEDIA_TYPE in media) == ("weights" in body), path


def test_errors() -> None:
    """Every error of the tree that travels stands in the table with its status and whether a retry may help."""
    of_clients = (errors.Unreachable, errors.UnexpectedAnswer)
    tree = [kind for kind in errors.FederationError.by_name.values() if kind.__module__ == errors.__name__]
    never = {errors.AggregationFailed, *(kind for kind in tree if issubclass(kind, of_clients))}
    shown = [row[:3] for row in table_under("docs/protocol.md", "Errors")]
    wanted = [
        [kind.name, str(status_of(kind)), "yes" if kind.retryable else "no"] for kind in tree if kind not in never
    ]
    assert sorted(shown) == sorted(wanted)
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    assert all(f"`{kind.name}`" in text for kind in (*never, errors.FederationError))


def test_run_configuration_shows_the_defaults() -> None:
    """The configuration in docs/protocol.md is the default one, whole."""
    (shown,) = [json.loads(fence.body) for fence in all_fences() if fence.rest == "RunConfig"]
    assert shown == RunConfig().model_dump(mode="json")


def test_configurations_shown_in_part() -> None:
    """Each piece of a federation.toml on the pages is one that a controller takes, and federation.toml itself is."""
    shown = {str(fence): fence.body for fence in all_fences() if fence.language == "toml"}
    shown["federation.toml"] = (ROOT / "federation.toml").read_text(encoding="utf-8")
    assert len(shown) > 2
    for text in shown.values():
        assert plan(resolve({"termination": {"federation_rounds": 1}}, tomllib.loads(text)))


def test_selectors_and_schedules() -> None:
    """The tables of docs/protocol.md name every selector with its parameters, and every kind of schedule."""
    rows = table_under("docs/protocol.md", "Who trains")
    takes = {name: set(inspect.signature(made).parameters) for name, made in SELECTORS.items()}
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    lines = {name: next(line for line in text.splitlines() if line.startswith(f"| `{name}` |")) for name in takes}
    assert {row[0] for row in rows} == set(takes)
    for name, parameters in takes.items():
        assert set(NAME.findall(lines[name].split("|")[3])) == parameters
    assert {row[0] for row in table_under("docs/protocol.md", "Parameters by round")} == set(schedules.KINDS)


def test_events() -> None:
    """The kinds of events in the table are those that the federation emits."""
    emitted = set(re.findall(r"""emit\(\s*(?:run, )?now,\s*"([a-z-]+)\"""", code_of("services"))) - {""}
    assert {row[0] for row in table_under("docs/protocol.md", "Events")} == emitted


def test_dtypes() -> None:
    """The dtypes of the weights document, with the size of an element."""
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    part = text[text.index("| dtype | bytes |") : text.index("An update has the tensors")]
    shown: dict[str, int] = {}
    for line in part.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for names, size in zip(cells[::2], cells[1::2], strict=False):
            shown |= {name: int(size) for name in NAME.findall(names)}
    assert shown == {name: dtype.itemsize for name, dtype in wire.DTYPES.items()}


def test_worked_example_of_the_weights_document() -> None:
    """The annotated bytes are what this project writes, and they are read back as described."""
    (fence,) = [fence for fence in all_fences() if fence.language == "hex"]
    octets = bytes.fromhex(" ".join(re.split(r" {3,}", line)[0] for line in fence.body.splitlines()))
    document = wire.decode(octets)
    assert [(t.name, t.array.dtype.name, t.array.tolist(), t.trainable) for t in document.tensors] == [
        ("w", "float32", [1.0, 2.0], True),
        ("steps", "int64", 3, False),
    ]
    assert (document.metrics, document.metadata) == ({"loss": 0.5}, {"num_training_examples": 600})
    assert b"".join(wire.encode(document.tensors, document.metrics, document.metadata)) == octets
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    assert f"An update of {len(octets)} bytes" in text
    assert wire.digest([octets]) in text
    assert octets.index(bytes.fromhex("0000803f")) == 64
    assert octets.index(bytes.fromhex("0300000000000000")) == 128


# ---- names
@pytest.mark.parametrize(
    ("row", "registry"),
    [
        ("Aggregation rules", RULES),
        ("Server optimizers", OPTIMIZERS),
        ("Algorithms of learners", ALGORITHMS),
        ("Transforms of updates", TRANSFORMS),
        ("Schedulers", SCHEDULERS),
        ("Selectors", SELECTORS),
        ("Scaling factors", SCALERS),
        ("Model stores", STORES),
    ],
)
def test_what_is_there(row: str, registry: dict[str, Any]) -> None:
    """README names what a user may type today, and does not promise what is there already."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    _, _, there, later, _ = line.split("|")
    assert set(NAME.findall(there)) == set(registry)
    assert not [name for name in registry if re.search(rf"\b{name}\b", later)]


def test_commands_of_the_driver() -> None:
    """README names every command of `metis`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| Driver |"))
    there = set(NAME.findall(line.split("|")[2].replace("`metis run`", "`run`")))
    group = typer.main.get_command(metis)
    assert there == set(group.commands)  # type: ignore[attr-defined]


def test_imports_for_users_of_metisfl() -> None:
    """Each import of the table works, and names what MetisFL's import names."""
    for theirs, ours in table_under("README.md", "Coming from MetisFL"):
        module, names = re.fullmatch(r"from (\S+) import (.+)", ours).groups()  # type: ignore[union-attr]
        assert names == theirs.partition(" import ")[2]
        assert all(hasattr(import_module(module), name) for name in names.split(", "))


def test_axes() -> None:
    """The axes of docs/architecture.md name Protocols and registries that are there."""
    code = code_of("services")
    for *_, protocol, registry in table_under("docs/architecture.md", "The axes"):
        if registry:
            assert f"class {protocol}(Protocol)" in code
            assert re.search(rf"^{registry}\b.* = {{", code, re.MULTILINE), registry


def test_files_of_the_architecture() -> None:
    """Every file of services stands in the table of its parts."""
    shown = {name.strip().rstrip("/") for row in _parts() for name in row.split(",")}
    files = {path.name for path in (ROOT / "services").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert shown == files - {"__init__.py", "__pycache__"}


def _parts() -> list[str]:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    part = text[text.index("| room or file | what it holds |") : text.index("## Two straight lines")]
    return [line.split("|")[1].replace("`", "") for line in part.splitlines()[2:] if line.startswith("|")]


# ---- operations
def test_metrics() -> None:
    """The metrics in the table are those that the controller has, with their labels."""
    shown = {row[0]: row[1] for row in table_under("docs/deploying.md", "Metrics")}
    metrics = [value for value in vars(Metrics()).values() if hasattr(value, "_labelnames")]
    suffix = {"counter": "_total"}
    has = {one._name + suffix.get(one._type, ""): ", ".join(one._labelnames) for one in metrics}
    assert shown == has


def test_limits() -> None:
    """The numbers in the table of limits are those of the code."""
    shown = {row[0]: row[1] for row in table_under("docs/deploying.md", "Limits")}
    assert shown["learners"] == f"{roster.MAX_LEARNERS:,}"
    assert shown["a long poll"] == f"{hot.MAX_WAIT_S:g} s"
    head = f"{zero_copy.HEAD_BYTES >> 10} KiB in {zero_copy.HEAD_FIELDS} fields"
    assert shown["head of a request, with its trailers"] == head
    assert shown["time for a head"] == f"{zero_copy.HEAD_S:g} s"
    dropped = f"{rest.LINGER_BYTES >> 20} MiB in {rest.LINGER_S:g} s"
    assert shown["what is left of a body that was answered"] == dropped
    slowest = receiving.SLOWEST * receiving.STALL_S / 1024
    assert shown["slowness of whoever reads an answer"] == f"{slowest:g} KiB in {receiving.STALL_S:g} s"
    assert shown["runs remembered"] == str(runs.MAX_RUNS)
    assert shown["events kept"] == f"{event_log.KEPT:,}"
    often = event_log.OFTEN_KEPT
    assert shown["events of progress kept"] == f"{often['task-progress']:,}"
    assert shown["events of joining kept, and of leaving"] == f"{often['learner-joined']:,} each"
    assert often["learner-joined"] == often["learner-left"]
    assert shown["learners that left, in the results of a run"] == f"{run.MAX_DEPARTED:,}"
    kept = shown["unfinished uploads kept to be resumed"]
    assert kept == f"METIS_UPLOAD_SLOTS, for {uploads.KEPT_S:g} s"
    assert shown["combined scores among the metrics"] == str(metrics.SCORES)
    assert shown["JSON to enrol"] == f"{gate.JOIN_BYTES >> 10} KiB"
    assert shown["JSON of a heartbeat"] == f"{gate.HEARTBEAT_BYTES >> 10} KiB"
    assert shown["JSON of scores, or of a failure"] == f"{gate.SCORES_BYTES >> 10} KiB"
    assert gate.SCORES_BYTES == gate.FAILURE_BYTES
    assert shown["line that says why a task failed"] == f"{failures.LINE} characters"
    assert shown["traceback of a failure"] == f"{failures.TRACEBACK:,} characters"
    assert shown["metrics, and metadata, of an update"] == f"{wire.MAX_TOLD_BYTES >> 10} KiB each"
    assert shown["tensors of a model"] == f"{wire.MAX_TENSORS:,}"
    assert shown["models put and not used by a run"] == str(uploaded.UPLOADED_KEPT)


def test_decisions_are_listed_and_dated() -> None:
    """Each record stands in the list with its title, and has its parts."""
    folder = ROOT / "docs" / "decisions"
    records = sorted(file for file in folder.glob("*.md") if file.name != "README.md")
    listed = [row[1] for row in table_under("docs/decisions/README.md", "Decisions")]
    assert listed == [_title(file) for file in records]
    for file in records:
        text = file.read_text(encoding="utf-8")
        assert re.search(r"^Date: \d{4}-\d\d-\d\d\. Status: ", text, re.MULTILINE), file.name
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def _title(record: Path) -> str:
    return record.read_text(encoding="utf-8").splitlines()[0].partition(". ")[2]


def test_rules_by_scheduler() -> None:
    """Which rule runs under which scheduler is what a run is refused by."""
    rows = table_under("docs/rules.md", "Which rule runs under which scheduler")
    shown = {name: [row[0] for row in rows if row[1 + at] == "yes"] for at, name in enumerate(SCHEDULERS)}
    assert {row[0] for row in rows} == set(RULES)
    assert shown == {name: allowed(name) for name in SCHEDULERS}


# ---- rules
def test_the_list_of_rules_is_that_of_the_command() -> None:
    """The section is what `metis rules --markdown` prints."""
    page = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
    section = page.partition("<!-- rules: begin -->")[2].partition("<!-- rules: end -->")[0]
    assert section.strip() == markdown(entries())
