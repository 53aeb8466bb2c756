"""A known vulnerability is told, and a question that was not answered is never taken for an answer."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.supply import audit
from tests.supply.runtime import needed, normal

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "tools" / "bin" / "python"


class Service(ThreadingHTTPServer):
    """Answers as OSV does. `vulnerable` are names of packages of which every version is."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.vulnerable: set[str] = set()
        self.asked: set[str] = set()
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class _Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        package = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
        self.server.asked.add(normal(package["name"]))
        known = {
            "id": "PYSEC-2026-1", "aliases": ["CVE-2026-0001"], "summary": "made up", "details": "made up",
            "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z",
            "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]}],
        }  # fmt: skip
        answer = json.dumps({"vulns": [known]} if normal(package["name"]) in self.server.vulnerable else {}).encode()
        self.send_response(503 if self.server.refuses else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(url: str) -> tuple[int, str]:
    command = [PYTHON, "-m", "tests.supply.audit", "-s", "osv", "--osv-url", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_everything_that_runs_is_asked_about(service: Service) -> None:
    code, said = run(service.url)
    assert 0 == code, said
    assert set(needed(ROOT / ".venv")) <= service.asked
    assert f"audit: {len(service.asked)} packages" in said or "have no known vulnerability, 0 have one" in said


def test_a_vulnerable_package_is_named_with_what_mends_it(service: Service) -> None:
    service.vulnerable = {"starlette"}
    code, said = run(service.url)
    assert 1 == code, said
    assert "audit: starlette 1." in said and "PYSEC-2026-1, CVE-2026-0001 (mended in 99)" in said


def test_a_vulnerable_package_that_only_tests_use_is_told(service: Service) -> None:
    service.vulnerable = {"pytest"}
    code, said = run(service.url)
    assert (0, True) == (code, "which only tests use, is vulnerable" in said), said


@pytest.mark.parametrize("gone", [False, True], ids=["a service that refuses", "a service that is not there"])
def test_without_an_answer_it_is_not_done(service: Service, gone: bool) -> None:
    service.refuses = True
    code, said = run("http://127.0.0.1:9/" if gone else service.url)
    assert 3 == code
    assert said.startswith("audit: NOT DONE for ") and "no known vulnerability" not in said


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"dependencies": [{"name": "duckdb", "skip_reason": "Dependency not found"}]}', {"duckdb": "Dependency not found"}),
        ('{"dependencies": []}', {"the image": "pip-audit found no package there"}),
        ("", {"the image": "No known vulnerabilities found"}),
    ],
)
def test_what_the_program_calls_clean_without_having_asked_is_not(tmp_path: Path, answer: str, why: dict[str, str]) -> None:
    """Where the index tells nothing of vulnerabilities, pip-audit 2.10 ends with 0 and says that none are known."""
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\necho 'No known vulnerabilities found' >&2\necho '{answer}'\n")
    program.chmod(0o755)
    found = audit.Audit()
    audit.ask(program, "the image", [], [], None, found)
    assert audit.Audit(unasked=why) == found
