"""A directory has one owner, and is on the disk before anything in it is promised to be."""

import os
from pathlib import Path

import pytest

from ingest.lock import own


def test_a_new_directory_is_synced_into_those_that_hold_it_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    own(tmp_path / "a" / "b" / "journal.lock", 0.0, "worker").close()
    assert {path.stat().st_ino for path in (tmp_path, tmp_path / "a")} == set(synced)
    synced.clear()
    own(tmp_path / "a" / "b" / "journal.lock", 0.0, "worker").close()
    assert [] == synced
