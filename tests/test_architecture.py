"""The architecture: imports point down, the domain is pure, nothing dangerous is used, rooms have one face."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["services", "controller_api", "learner_agent", "driver_cli"]
COMPOSITION_ROOT = Path("driver_cli/local/simulation.py")  # puts a controller, learners and a driver into one process
TORCH = Path("learner_agent/pytorch")  # what only its users import
EDGE = ("rest", "store", "state", "process")  # rooms of the domain that touch the world
NUMERIC_LOOPS = Path("services/weights/blocks.py")  # shares numpy's loops out to threads, waits for all of them
REGISTRIES = {Path("services", name) for name in ("aggregation", "encoding", "optimizers", "scheduling", "transforms")}
SMALL: dict[str, str] = {}  # with one importer, and why they stand alone
ENTERED_OTHERWISE = {  # modules that are imported past their room's face, and why
    "controller_api.http.routes": "a room in a room: the app puts its routes together",
    "driver_cli.local.demo": "a program, loaded by its command alone",
    "driver_cli.local.simulation": "a program, loaded by its command alone",
    "driver_cli.local.verification": "a program, loaded by its command alone",
}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "multipart", "python_multipart"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "UploadFile", "Form", "File"}
RESOLVES_NAMES = Path("services/process/environment.py")  # of the local command line


def modules(*packages: str) -> list[Path]:
    """The Python files of packages, relative to the root."""
    return sorted(path.relative_to(ROOT) for name in packages for path in (ROOT / name).rglob("*.py"))


def examples() -> list[Path]:
    """The Python files of the examples."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "examples").rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Dotted names of what a file imports from outside its package, at the top or inside functions."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def tops(path: Path) -> set[str]:
    """The same, the part before the first dot."""
    return {name.partition(".")[0] for name in imported(path)}


every_module = pytest.mark.parametrize("path", modules(*PACKAGES), ids=str)


@every_module
def test_imports_point_down(path: Path) -> None:
    """`services` knows none of the others; these know `services` and never one another; one file puts all together."""
    own = path.parts[0]
    allowed = {"services"} if path != COMPOSITION_ROOT else {"services", "controller_api", "learner_agent"}
    allowed = set() if own == "services" else allowed
    assert tops(path) & set(PACKAGES) <= allowed
    assert not tops(path) & {"tests", "examples"}


@every_module
def test_imports_are_relative_inside_a_package(path: Path) -> None:
    """A package does not name itself, and a relative import does not climb out of it."""
    assert path.parts[0] not in tops(path)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level < len(path.parts)


@pytest.mark.parametrize("path", modules("services"), ids=str)
def test_the_domain_is_pure(path: Path) -> None:
    """No thread, no event loop, no clock and no network but in the rooms at its edge; httpx only in `rest`."""
    if path.parts[1] != "rest":
        assert "httpx" not in tops(path)
        assert not tops(path) & {"socket", "http", "urllib", "ssl", "fastapi", "starlette", "uvicorn"}
    if path.parts[1] not in EDGE:
        assert not tops(path) & {"threading", "asyncio", "time", "multiprocessing", "random", "secrets"}
        assert "concurrent" not in tops(path) or path == NUMERIC_LOOPS


def test_the_domain_asks_no_wall_clock() -> None:
    """`datetime.now` and its like are called nowhere in the domain: time comes in as an argument."""
    for path in modules("services"):
        called = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
        assert not called & {"now", "utcnow", "today"} - ({"now"} if path.parts[1] == "rest" else set()), path


@every_module
def test_torch_is_only_in_its_helpers(path: Path) -> None:
    """The controller and the driver run without torch, and so does an agent whose user does not use it."""
    if TORCH not in path.parents:
        assert not tops(path) & {"torch", "torchvision"}


@pytest.mark.parametrize("path", modules(*PACKAGES) + examples(), ids=str)
def test_nothing_dangerous_is_used(path: Path) -> None:
    """No pickle in any of its forms, no evaluation of text, no multipart forms; no array that may hold objects."""
    assert not tops(path) & FORBIDDEN_MODULES
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in FORBIDDEN_NAMES
        assert called not in ("torch.load", "yaml.load", "os.system")
        assert not called.endswith(".form")
        for keyword in node.keywords:
            shown = f"{keyword.arg}={ast.unparse(keyword.value)}"
            assert shown not in ("allow_pickle=True", "shell=True", "weights_only=False")


@every_module
def test_logs_are_given_text_never_exceptions(path: Path) -> None:
    """Who renders an exception may show the variables of its frames: a user's log that an application configured."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("log.exception", "traceback.print_exc", "traceback.format_exc")
            assert not [one for one in node.keywords if one.arg in ("exc_info", "stack_info", "capture_locals")]


@every_module
def test_names_are_resolved_to_code_only_from_the_local_command_line(path: Path) -> None:
    """`module:attribute` is imported by one file, for those who read the process's own arguments."""
    calls = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    assert not calls & {"importlib.import_module", "import_module"} or path == RESOLVES_NAMES


@every_module
def test_every_module_says_what_it_is(path: Path) -> None:
    """A module begins with a docstring of a sentence."""
    said = ast.get_docstring(tree(path))
    assert said
    assert len(said.split()) > 2


def room_of(module: str) -> str:
    """`services.weights.wire` stands in `services.weights`; a file of a package's top is a room of its own."""
    return ".".join(module.split(".")[:2])


@cache
def imports() -> dict[str, set[str]]:
    """What each module of the packages imports of them."""
    named = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in modules(*PACKAGES)}
    found: dict[str, set[str]] = {name: set() for name in named}
    for name, path in named.items():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ImportFrom):
                continue
            parts = list(path.parts[:-1])[: len(path.parts) - node.level] if node.level else []
            full = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{full}.{alias.name}" if f"{full}.{alias.name}" in named else full
                if target in named and target != name:
                    found[name].add(target)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_have_no_circle(package: str) -> None:
    """Of each package: from no room a way of imports leads back to it."""
    arrows: dict[str, set[str]] = {}
    for name, targets in imports().items():
        if name.partition(".")[0] == package and "." in name:
            rooms = {room_of(one) for one in targets if "." in one and one.partition(".")[0] == package}
            arrows.setdefault(room_of(name), set()).update(rooms - {room_of(name)})
    assert len(list(TopologicalSorter(arrows).static_order())) >= len(arrows)


def test_rooms_are_entered_by_their_face() -> None:
    """Another room imports from a room's `__init__`, or one of its modules as a whole; what is else has a reason."""
    entered = set()
    for path in modules(*PACKAGES):
        own = ".".join(path.parts[:2]).removesuffix(".py")
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ImportFrom):
                continue
            parts = list(path.parts[:-1])[: len(path.parts) - node.level] if node.level else []
            full = ".".join([*parts, *([node.module] if node.module else [])])
            deep = full.count(".") >= 2 and full.partition(".")[0] in PACKAGES and room_of(full) != own
            if deep:
                entered.add((str(path), full))
    assert {full for _, full in entered} == set(ENTERED_OTHERWISE), sorted(entered)


@pytest.mark.parametrize(("package", "most"), [("services", 24), ("controller_api", 16)])
def test_a_package_is_seen_at_a_glance(package: str, most: int) -> None:
    """Few entries directly in it."""
    entries = {one.name for one in (ROOT / package).iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert len(entries) <= most


def test_no_satellites() -> None:
    """A file with one importer and less than 40 lines, which its room does not show, belongs there, or has a
    reason."""
    faces = {name for name in imports() if (ROOT / name.replace(".", "/") / "__init__.py").is_file()}
    shown = {target for face in faces for target in imports()[face]}
    users: dict[str, set[str]] = {}
    for name, targets in imports().items():
        for target in targets:
            users.setdefault(target, set()).add(name)
    small = {
        str(path)
        for path in modules(*PACKAGES)
        if path.name not in ("__init__.py", "__main__.py")
        and len((ROOT / path).read_text(encoding="utf-8").splitlines()) < 40
        and (name := ".".join(path.with_suffix("").parts)) not in shown
        and len(users.get(name, set())) == 1
    }
    assert {one for one in small if Path(one).parent not in REGISTRIES} == set(SMALL)


@every_module
def test_every_function_is_annotated(path: Path) -> None:
    """Arguments and results have types everywhere (mypy checks them; this names the file without it)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [one.arg for one in given if one.annotation is None and one.arg not in ("self", "cls")]
            assert not untyped, f"{node.name}: {untyped}"
            assert node.returns is not None, node.name


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"
    run = [sys.executable, "-c", code]
    return set(subprocess.run(run, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import services",
        "import controller_api",
        "from controller_api import Controller",
        "import learner_agent",
        "import learner_agent.__main__",
        "from learner_agent import Learner, app, progress",
        "import driver_cli",
        "import driver_cli.main",
        "from driver_cli import DriverSession",
    ],
)
def test_fastapi_and_torch_are_not_on_the_import_path_of_the_command_line(statement: str) -> None:
    """What takes seconds to import is imported only by the process that serves, or that trains with it."""
    loaded = loaded_by(statement)
    assert statement.split()[1] in loaded
    assert not loaded & {"fastapi", "starlette", "torch", "torchvision", "sklearn", "prometheus_client"}


def test_the_domain_loads_no_client() -> None:
    """The state machine and its rules work without httpx."""
    names = "federation, engine, store, weights, aggregation, partition"
    assert "httpx" not in loaded_by(f"from services import {names}")


def test_the_composition_root_is_where_it_is_said_to_be() -> None:
    """The one exception exists; when it goes, the exception goes."""
    assert (ROOT / COMPOSITION_ROOT).is_file()
    assert (ROOT / RESOLVES_NAMES).is_file()
