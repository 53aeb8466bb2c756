"""Search what would be published for secrets, in ROOT or in this directory.

It looks at every file of the working tree that git does not ignore, and at every file and message of every
commit that any branch or tag reaches: what was deleted later is still in the history. Nothing is looked
up anywhere, and no secret is printed. Exit codes: 0 none, 1 at least one, or an allowance that nothing
needs, 2 it could not be done.
"""

import argparse
import fnmatch
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.filters.heuristic import IGNORED_FILE_EXTENSIONS
from detect_secrets.settings import transient_settings

HERE = Path(__file__).resolve().parent
MESSAGES = "commit-message"
READ_WHOLE = {".yaml", ".yml", ".ini", ".cfg", ".conf", ".toml", ".properties", ".eyaml"}
"""What the detectors may read as a whole, and not line by line."""

HEURISTICS = (
    "is_indirect_reference", "is_not_alphanumeric_string", "is_potential_uuid", "is_prefixed_with_dollar_sign",
    "is_sequential_string", "is_templated_secret",
)  # fmt: skip
"""What makes a find no secret. Not among them: marks in the code that silence a find, and whole kinds of files."""


@dataclass(frozen=True)
class Allowance:
    kind: str
    files: str
    text: str
    why: str

    def covers(self, kind: str, file: str, text: str) -> bool:
        return kind == self.kind and fnmatch.fnmatchcase(file, self.files) and re.fullmatch(self.text, text) is not None


@dataclass(frozen=True, order=True)
class Find:
    """`where` is the working tree, or the short number of a commit."""

    file: str
    line: int
    kind: str
    where: str


def git(root: Path, *words: str, said: str | None = None) -> bytes:
    return subprocess.run(["git", "-C", str(root), *words], input=said and said.encode(), capture_output=True, check=True).stdout


def history(root: Path) -> Iterator[tuple[str, str, bytes]]:
    """(object, file, bytes) of each version of each file, and of each commit's message."""
    listed = (line.partition(" ") for line in git(root, "rev-list", "--objects", "--all").decode().splitlines())
    names = [(number, file) for number, _, file in listed]
    told = git(root, "cat-file", "--batch", said="".join(f"{number}\n" for number, _ in names))
    at = 0
    for number, file in names:
        end = told.index(b"\n", at)
        _, kind, size = told[at:end].split()
        at = end + 1 + int(size) + 1
        if kind == b"blob":
            yield number, file, told[end + 1 : at - 1]
        elif kind == b"commit":
            yield number, MESSAGES, told[end + 1 : at - 1].partition(b"\n\n")[2]


def working_tree(root: Path) -> Iterator[tuple[str, bytes]]:
    for name in sorted(set(git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0"))):
        path = root / name
        if name and path.is_file():
            yield name, path.read_bytes()


def first_commit_with(root: Path, number: str) -> str:
    """The commit that brought a version of a file, or the commit itself."""
    found = git(root, "log", "--all", "--reverse", "--format=%h", f"--find-object={number}").decode().split()
    return found[0] if found else number[:7]


def detected(directory: Path, files: list[str]) -> Iterator[tuple[str, int, str, str]]:
    """(file, line, kind, text), with every detector there is and the one of this product."""
    shipped = [{"name": cls.__name__} for cls in get_mapping_from_secret_type_to_class().values()]
    own = {"name": "ProductSecretDetector", "path": (HERE / "detector.py").as_uri()}
    get_mapping_from_secret_type_to_class.cache_clear()  # it would not look at the settings again
    filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in HEURISTICS]
    with transient_settings({"plugins_used": [*shipped, own], "filters_used": filters}), chdir(directory):
        found = SecretsCollection()
        found.scan_files(*files)
        for file, secret in found:
            yield file, secret.line_number, secret.type, secret.secret_value or ""


def new_lines(text: str, known: set[str]) -> tuple[str, list[int]]:
    """The lines that no earlier version of a file had, which are known afterwards, and their numbers in it."""
    kept = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line not in known]
    known.update(line for _, line in kept)
    return "\n".join(line for _, line in kept), [number for number, _ in kept]


def scan(root: Path, allowed: list[Allowance]) -> tuple[list[Find], set[Allowance], int]:
    """What was found, which allowances were needed, and how many contents were looked at."""
    with tempfile.TemporaryDirectory() as made:
        copies = Path(made)
        seen: dict[tuple[str, bytes], str] = {}
        for number, file, content in reversed([*history(root)]):  # the oldest first
            seen.setdefault((file, content), number)
        for file, content in working_tree(root):
            seen.setdefault((file, content), "")
        origin = {}
        known: dict[str, set[str]] = {}
        for count, ((file, content), number) in enumerate(seen.items()):
            suffix = Path(file).suffix.lower()
            copy = f"{count}/{file}{'.txt' if suffix in IGNORED_FILE_EXTENSIONS else ''}"  # it would not open them
            text = content.decode("utf-8", "replace")  # one odd byte would hide a file
            numbers = None
            if suffix not in READ_WHOLE:
                text, numbers = new_lines(text, known.setdefault(file, set()))
            if text:
                (copies / copy).parent.mkdir(parents=True)
                (copies / copy).write_text(text, "utf-8")
                origin[copy] = file, number, numbers
        finds, needed = set(), set()
        for copy, line, kind, text in detected(copies, list(origin)):
            file, number, numbers = origin[copy]
            covering = {allowance for allowance in allowed if allowance.covers(kind, file, text)}
            needed |= covering
            if not covering:
                place = numbers[line - 1] if numbers else line
                finds.add(Find(file, place, kind, first_commit_with(root, number) if number else "working tree"))
        return sorted(finds), needed, len(seen)


def main() -> int:
    parser = argparse.ArgumentParser(description="Search a working tree and its history for secrets.")
    parser.add_argument("root", type=Path, nargs="?", default=Path("."), help="where it is; this directory when absent")
    parser.add_argument("--allowed", type=Path, default=HERE / "allowed.toml", help="what is found and is no secret")
    asked = parser.parse_args()
    root = asked.root.resolve()
    try:
        allowed = [Allowance(**entry) for entry in tomllib.loads(asked.allowed.read_text()).get("allowed", [])]
        finds, needed, count = scan(root, allowed)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.decode(errors="replace").strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        print(f"secrets: {root} could not be searched: {said}", file=sys.stderr)
        return 2
    for find in finds:
        print(f"secrets: {find.file}:{find.line} ({find.where}): {find.kind}")
    stale = [allowance for allowance in allowed if allowance not in needed]
    for allowance in stale:
        print(f"secrets: {asked.allowed.name} allows {allowance.kind!r} in {allowance.files}, and nothing needs it; remove it")
    if finds:
        print(
            "secrets: take each out, and change it where it is in use: what was published once is known. "
            "What is none is named in tests/supply/allowed.toml, with its reason."
        )
    print(f"secrets: {len(finds)} in {count} versions of files and commit messages, {len(needed)} kinds of finds allowed")
    return 1 if finds or stale else 0


if __name__ == "__main__":
    sys.exit(main())
