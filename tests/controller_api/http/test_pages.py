"""The pages that the controller serves, in a real browser against a real server."""

from __future__ import annotations

import contextlib
import http.server
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
import uvicorn

from controller_api.app import create_app
from controller_api.http.pages import FILES, HERE
from controller_api.settings import Settings

try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    Browser = Page = Any  # type: ignore[misc, assignment]
    expect = sync_playwright = None  # type: ignore[assignment]

VIEWER, OPERATOR, ENROLL = (f"{role}-token-of-this-test" for role in ("viewer", "operator", "enroll"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
]
PATIENCE_MS = 60_000


# ---- what is tested against: a controller, learners made of plain requests, a browser
@contextlib.contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[str]:
    """A controller on a free port of 127.0.0.1; its URL."""
    app = create_app(Settings(data_dir=folder, model_store="InMemory", **settings))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


class Learners:
    """Learners that train nothing, driven step by step from the test."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=20)
        self._known: list[dict[str, str]] = []  # their ids and headers
        self.examples: dict[int, int] = {}  # by the order in which they joined, what they say instead of 10
        self.spoils: int | None = None  # which of them sends what is refused

    def join(self, name: str, **request: Any) -> None:
        answer = self._call("POST", "/v1/learners", json={"name": name, "num_training_examples": 10, **request})
        token = {"Authorization": f"Bearer {answer.json()['token']}"}
        self._known.append({"id": answer.json()["id"], **token})

    def run(self, rounds: int, **config: Any) -> None:
        termination = {"federation_rounds": rounds}
        config = {"min_learners": len(self._known), "termination": termination, **config}
        self._call("POST", "/v1/runs", json=config)

    def work(self, until: Callable[[dict[str, Any]], bool], failing: str | None = None) -> dict[str, Any]:
        """Do tasks until one that `until` is true of is met, and return it undone; an end of the run ends it too."""
        for _ in range(400):
            for learner in self._known:
                answer = self._call("GET", f"/v1/learners/{learner['id']}/task?wait=0", learner)
                if answer.status_code == 200:
                    task: dict[str, Any] = answer.json()
                    if until(task):
                        return {**task, "learner": learner}
                    self._do(task, learner, failing)
            if self._call("GET", "/v1/runs/latest").json()["state"] in ("completed", "stopped", "failed"):
                return {}
        raise AssertionError("the run does not end")

    def beat(self, task: dict[str, Any], **progress: Any) -> None:
        learner = task["learner"]
        beat = {"task_id": task["id"], "progress": progress}
        self._call("POST", f"/v1/learners/{learner['id']}/heartbeat", learner, json=beat)

    def _do(self, task: dict[str, Any], learner: dict[str, str], failing: str | None) -> None:
        path = f"/v1/tasks/{task['id']}"
        if task["kind"] == "evaluate":
            accuracy = 1 - 0.5 ** task["round"]  # 0.5, 0.75, 0.875, …
            metrics = {"accuracy": accuracy, "<b>loss</b>": 1 / task["round"]}
            self._call("PUT", f"{path}/result", learner, json={"metrics": metrics})
        elif task["kind"] == "train" and failing and learner is self._known[0]:
            self._call("POST", f"{path}/failure", learner, json={"error": failing})
        else:
            number = self._known.index(learner)
            if spoilt := task["kind"] == "train" and number == self.spoils:
                bad = {"Content-Type": "application/vnd.msgpack", **learner}
                assert self._http.put(f"{path}/result", content=b"\xc1", headers=bad).status_code == 422
                self._http.post(f"{path}/failure", json={"error": "malformed-update"}, headers=learner)
            data = np.full(3, task["round"], "<f4").tobytes()
            tensor = {"name": "0", "dtype": "float32", "shape": [3], "data": data}
            metadata = {"num_training_examples": self.examples.get(number, 10)}
            body = msgpack.packb({"metrics": {}, "metadata": metadata, "tensors": [tensor]})
            weights = {"Content-Type": "application/vnd.msgpack"}
            if not spoilt:
                self._call("PUT", f"{path}/result", learner, content=body, headers=weights)

    def _call(self, method: str, path: str, learner: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if learner is not None:
            headers["Authorization"] = learner["Authorization"]
        answer = self._http.request(method, path, headers=headers, **more)
        assert answer.is_success, answer.text
        return answer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium for the module: the system's, or the one that playwright installed."""
    if sync_playwright is None:
        _skip("the package playwright is missing")
    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        paths = [shutil.which(name) for name in names] + [playwright.chromium.executable_path]
        path = next((path for path in paths if path and Path(path).exists()), None)
        if path is None:
            _skip("no Chromium was found (apt-get install chromium, or playwright install chromium)")
        with contextlib.closing(playwright.chromium.launch(executable_path=path, args=FLAGS)) as launched:
            yield launched


def _skip(why: str) -> None:
    warnings.warn(f"THE PAGES WERE NOT TESTED IN A BROWSER: {why}", stacklevel=2)
    pytest.skip(why)


class Look:
    """A tab, and all that it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.urls: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("request", lambda request: self.urls.append(request.url))
        # Chromium writes a violation of the content security policy to the console too; this also catches silent ones.
        page.add_init_script(
            "window.violations = [];"
            "addEventListener('securitypolicyviolation', (event) => window.violations.push(event.violatedDirective));"
        )

    def leave(self, origin: str) -> None:
        """Close the page: it has met no error, no violation, and asked nothing of another origin."""
        assert self.page.evaluate("window.violations") == []
        self.page.goto("about:blank")  # ends its event stream, for which the server would wait
        assert self.complaints == []
        assert [url for url in self.urls if not url.startswith((f"{origin}/", "data:", "about:"))] == []


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """A fresh tab without a past."""
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Look(context.new_page())
    context.close()


# ---- the page
def test_the_page_follows_a_run_from_an_empty_federation_to_its_end(look: Look, tmp_path: Path) -> None:
    """It says what to type next, shows learners, progress, rounds and the curve as they come, without a reload."""
    page = look.page
    with serving(tmp_path) as url:
        page.goto(f"{url}/")
        expect(page.locator("#state")).to_have_text("Ready for learners")
        commands = page.locator("#steps code")
        expect(commands).to_have_text(
            [
                f"metis-learner --controller {url} --learner learner_agent.digits:digits_learner",
                f"metis run --controller {url} --learners 3 --rounds 5",
            ]
        )
        learners = Learners(url)
        for name in ("anna", "ben", "cleo"):
            learners.join(name)
        expect(page.locator("#learners tr .title")).to_have_text(["anna", "ben", "cleo"])

        learners.run(3, name="first", train={"epochs": 2})
        task = learners.work(until=lambda task: task["kind"] == "train" and task["round"] == 2)
        learners.beat(task, epoch=1, batch=3, loss=0.5)
        expect(page.locator("#state")).to_have_text("Training · round 2 of 3")
        expect(page.locator("#waiting")).to_contain_text("aiting")
        expect(page.locator("#learners")).to_contain_text("epoch 1 of 2 · batch 3 · loss 0.5")
        expect(page.locator("#learners")).to_contain_text("train · round 2")
        expect(page.locator("#rounds tr").last).to_contain_text("3 of 3 completed")

        learners.work(until=lambda task: False)
        expect(page.locator("#state")).to_have_text("Completed after 3 rounds")
        expect(page.locator("#waiting")).to_contain_text("3 rounds are done")
        expect(page.locator("#facts")).to_contain_text("FedAvg")
        expect(page.locator("#rounds tr th")).to_have_text([re.compile("3"), re.compile("2"), re.compile("1")])
        expect(page.locator("#rounds tr").first).to_contain_text("0.875")
        expect(page.locator("#log li").first).to_contain_text("completed")
        curve = page.locator(".curve", has_text="accuracy").locator("svg")
        expect(curve.locator(".point")).to_have_count(3)
        curve.press("Home")
        expect(curve).to_have_attribute("aria-valuetext", "round 1: 0.5")
        curve.hover(position={"x": 400, "y": 60})
        expect(page.locator(".curve", has_text="accuracy").locator(".readout")).to_contain_text("round")
        look.leave(url)


def test_what_comes_from_learners_is_text(look: Look, tmp_path: Path) -> None:
    """Markup in a name, a label, a metric or an error is shown as it was written, and no script runs."""
    evil = '<img src=x onerror="window.pwned=1">'
    page = look.page
    with serving(tmp_path) as url:
        learners = Learners(url)
        learners.join(evil, labels={"site": evil})
        learners.join("ben")
        learners.run(1, name=evil)
        trace = f'Traceback (most recent call last):\n  File "a.py", line 3, in train\nValueError: {evil}'
        learners.work(until=lambda task: False, failing=trace)
        page.goto(f"{url}/")
        expect(page.locator("#learners .title").first).to_have_text(evil)
        expect(page.locator("#learners small").first).to_have_text(f"site: {evil}")
        expect(page.locator("#facts")).to_contain_text(evil)
        expect(page.locator("#rounds-head")).to_contain_text("<b>loss</b>")
        page.locator("#rounds details summary").first.click()
        told = page.locator("#rounds details li")
        expect(told).to_have_text(f"{evil}: ValueError: {evil}traceback")
        told.locator("summary").click()
        expect(told.locator("pre")).to_have_text(trace)
        expect(page.locator("#log")).to_contain_text(evil)
        failed = page.locator("#log li", has_text="could not train")
        expect(failed).to_contain_text(f"{evil} could not train: ValueError: {evil}")
        failed.locator("summary").click()
        expect(failed.locator("pre")).to_have_text(trace)
        assert page.locator("main img, main b:not(details b)").count() == 0
        assert page.evaluate("window.pwned") is None
        look.leave(url)


def test_it_names_learners_that_weigh_too_much_or_get_no_tasks(look: Look, tmp_path: Path) -> None:
    """With the round, both numbers, the reason, and what to do."""
    page = look.page
    with serving(tmp_path) as url:
        learners = Learners(url)
        for name in ("anna", "ben", "cleo", "mallory"):
            learners.join(name)
        learners.examples, learners.spoils = {0: 2**53}, 3
        learners.run(4, evaluation={"every": 0})
        learners.work(until=lambda task: False)
        page.goto(f"{url}/")
        expect(page.locator("#state")).to_have_text("Completed after 4 rounds")
        expect(page.locator("#rounds tr").first).to_contain_text("anna's factor 9.01e+15 counts as 10000")
        row = page.locator("#learners tr", has_text="mallory")
        expect(row).to_contain_text("active, aside")
        expect(row).to_contain_text("Gets no tasks: its updates were refused in 3 rounds in a row")
        expect(row).to_contain_text("metis readmit mallory or its restart lets it back.")
        expect(page.locator("#log")).to_contain_text("mallory is put aside and gets no tasks")
        expect(page.locator("#log")).to_contain_text("anna's factor 9.0072e+15 counts as 10000")
        look.leave(url)


def test_it_says_why_rounds_made_no_model(look: Look, tmp_path: Path) -> None:
    """In each round, in the log, and at the end of the run."""
    page = look.page
    with serving(tmp_path) as url:
        learners = Learners(url)
        for name in ("anna", "ben"):
            learners.join(name)
        learners.examples = {0: 0, 1: 0}
        learners.run(4, evaluation={"every": 0})
        learners.work(until=lambda task: False)
        page.goto(f"{url}/")
        expect(page.locator("#state")).to_have_text("Failed in round 3")
        why = "no update has a scaling factor above 0"
        expect(page.locator("#waiting")).to_contain_text("3 rounds in a row made no model")
        expect(page.locator("#rounds tr").last).to_contain_text(f"no model, the one before stays: {why}")
        expect(page.locator("#log")).to_contain_text(f"round 1 failed: {why}")
        look.leave(url)


def test_a_token_is_asked_for_and_stays_out_of_sight(look: Look, tmp_path: Path) -> None:
    """401 brings the field; a wrong token is told; the right one opens the page and appears in no URL and no markup."""
    page = look.page
    with serving(tmp_path, viewer_token=VIEWER, operator_token=OPERATOR, enroll_token=ENROLL) as url:
        page.goto(f"{url}/")
        field = page.get_by_label("Token")
        expect(field).to_be_focused()
        expect(field).to_have_attribute("type", "password")
        expect(page.locator("main")).to_be_hidden()
        field.fill("a-token-that-nobody-knows")
        field.press("Enter")
        expect(page.locator("#token-error")).to_have_text("The controller does not know this token.")
        field.fill(VIEWER)
        field.press("Enter")
        expect(page.locator("#state")).to_have_text("Ready for learners")
        expect(page.locator("#link-text")).to_have_text("live")
        expect(field).to_be_hidden()
        page.reload()
        expect(page.locator("#state")).to_have_text("Ready for learners")
        page.locator("#metrics").click()
        expect(page.locator("#metrics-text")).to_contain_text("# TYPE")
        page.locator("#metrics-close").click()
        assert not [one for one in look.urls if VIEWER in one]
        assert VIEWER not in page.content()
        assert page.evaluate("localStorage.length") == 0
        assert page.context.cookies() == []
        page.locator("#forget").click()
        expect(field).to_be_focused()
        look.complaints = [one for one in look.complaints if "401" not in one]
        look.leave(url)


def test_a_telephone_scrolls_in_one_direction(look: Look, tmp_path: Path) -> None:
    """At 390 pixels nothing sticks out, whatever the names are."""
    page = look.page
    page.set_viewport_size({"width": 390, "height": 844})
    with serving(tmp_path) as url:
        page.goto(f"{url}/")
        expect(page.locator("#state")).to_have_text("Ready for learners")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        learners = Learners(url)
        learners.join("a-learner-with-a-name-that-is-as-long-as-names-may-be-here-xxxxx"[:64])
        learners.run(2, name="n" * 100)
        learners.work(until=lambda task: False)
        expect(page.locator("#state")).to_have_text("Completed after 2 rounds")
        expect(page.locator("#curves svg .line").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        look.leave(url)


# ---- /docs
def test_docs_show_every_operation_without_any_other_origin(look: Look, tmp_path: Path) -> None:
    """Swagger UI renders the whole document from files of the controller."""
    page = look.page
    with serving(tmp_path) as url:
        document = httpx.get(f"{url}/openapi.json").json()
        verbs = ("get", "put", "post", "delete", "head", "patch", "options")
        described = [*document["paths"].values(), *document["webhooks"].values()]
        operations = sum(verb in verbs for path in described for verb in path)
        assert operations > 10
        page.goto(f"{url}/docs")
        expect(page.locator(".opblock")).to_have_count(operations)
        page.locator(".opblock-summary").first.click()
        expect(page.locator(".opblock-body").first).to_be_visible()
        look.leave(url)


# ---- the protocol
def test_the_protocol_is_a_page(look: Look, tmp_path: Path) -> None:
    """docs/protocol.md, to be read by whoever has the controller alone: each heading, table and block, nothing that
    was meant for the repository, and every link leads somewhere."""
    source = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
    prose = re.sub(r"^ *```.*?^ *```$", "", source, flags=re.MULTILINE | re.DOTALL)
    with serving(tmp_path) as url:
        page = look.page
        page.goto(f"{url}/docs")
        page.get_by_role("link", name="Protocol", exact=True).click()
        expect(page.locator("h1")).to_have_text("Protocol")
        expect(page.locator("h2, h3")).to_have_count(len(re.findall(r"^###? ", prose, re.MULTILINE)))
        expect(page.locator("table")).to_have_count(len(re.findall(r"^\|[-|: ]+\|$", prose, re.MULTILINE)))
        text = page.locator("main").inner_text()
        assert not [sign for sign in ("<!--", "](", "|---") if sign in text]
        broken = "all => all.map(a => a.getAttribute('href')).filter(to => !document.getElementById(to.slice(1)))"
        assert page.locator("main a").count() > 20
        assert page.locator("main a").evaluate_all(broken) == []
        page.get_by_role("link", name="errors", exact=True).first.click()
        expect(page.locator("#errors")).to_be_in_viewport()
        assert page.evaluate("document.querySelectorAll('script, [style]').length") == 0
        look.leave(url)


# ---- as files
def test_pages_are_served_with_strict_headers_and_validators(tmp_path: Path) -> None:
    """Every file: policy, nosniff, no referrer, a validator that spares the body, HEAD without one."""
    with serving(tmp_path) as url, httpx.Client(base_url=url) as http:
        for path in ["/", "/docs", "/docs/protocol", *(f"/static/{name}" for name in FILES)]:
            got = http.get(path)
            assert got.status_code == 200
            policy = got.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert ("unsafe" in policy) == (path == "/docs")
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["referrer-policy"] == "no-referrer"
            assert got.headers["cache-control"] == "no-cache"
            held = http.get(path, headers={"If-None-Match": f'"other", W/{got.headers["etag"]}'})
            assert (held.status_code, held.content) == (304, b"")
            head = http.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(got.content))


def test_no_other_file_is_served(tmp_path: Path) -> None:
    """A name is looked up, never joined to a folder."""
    names = ["pages.py", "..%2fpages.py", "%2e%2e", "index.html", "page.css%00", "redoc.standalone.js", "page.css/"]
    with serving(tmp_path) as url, httpx.Client(base_url=url) as http:
        for name in names:
            answer = http.get(f"/static/{name}")
            assert (name, answer.status_code) == (name, 404)
            assert answer.headers["content-type"] == "application/problem+json"


def test_every_file_of_the_folder_is_known() -> None:
    """A script that is not in FILES would be missing in the browser."""
    ours = {name for name, (folder, _) in FILES.items() if folder == HERE}
    assert ours == {path.name for path in HERE.iterdir()} - {"index.html", "docs.html", "protocol.html"}


def test_importing_the_pages_imports_no_framework() -> None:
    """The package that carries Swagger UI is read, not imported."""
    code = "import sys, controller_api.http.pages as p; p.swagger(); sys.exit('fastapi_offline' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


class Elsewhere(http.server.SimpleHTTPRequestHandler):
    """A web server of somebody else: an empty page."""

    def do_GET(self) -> None:
        """See BaseHTTPRequestHandler."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


ASKS = """async (url) => {
  const told = {};
  for (const [path, options] of [
    ["/v1/shutdown", { method: "POST", mode: "no-cors" }],
    ["/v1/runs", { method: "POST", mode: "no-cors", body: "{}" }],
    ["/v1/federation", {}],
  ]) {
    told[path] = await fetch(url + path, options).then((answer) => answer.status, () => "nothing");
  }
  return told;
}"""


def test_a_page_of_another_origin_ends_and_reads_nothing(tmp_path: Path, browser: Browser) -> None:
    """In a real browser: `no-cors` requests, which it sends without asking, a form, and a name that leads here (DNS
    rebinding), under which a page would be of the controller's own origin."""
    with serving(tmp_path) as url, socketserver.ThreadingTCPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        with contextlib.closing(browser.new_context()) as context:
            page = context.new_page()
            for host in ("elsewhere.example", "localhost"):
                page.goto(f"http://{host}:{elsewhere.server_address[1]}/")
                told = page.evaluate(ASKS, url)
                assert told["/v1/federation"] == "nothing"
                page.set_content(f'<form method="post" action="{url}/v1/shutdown"><button>Win</button></form>')
                with page.expect_navigation() as going:
                    page.click("button")
                assert going.value is not None
                assert going.value.status == 403
            rebound = url.replace("127.0.0.1", "rebound.example")
            came = page.goto(f"{rebound}/")
            assert came is not None
            assert came.status == 421
            assert set(page.evaluate(ASKS, rebound).values()) == {421}
            assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}
            assert httpx.get(f"{url}/v1/runs").json() == []
            page.goto(f"{url}/")
            assert page.evaluate("fetch('/v1/federation').then((answer) => answer.status)") == 200
        elsewhere.shutdown()
