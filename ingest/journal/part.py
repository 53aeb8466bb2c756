"""What the parts of the journal share: the one connection, and a few words of SQL."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ingest.errors import NoRoom

ROWS_AT_ONCE = 100
CANNOT_WRITE = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE})


class Part:
    """Some tables of the journal. All parts live in one `Journal` and use its connection."""

    _db: sqlite3.Connection
    is_writable: Callable[[int], bool] | None = None
    """Whether a file of so many bytes can grow: asked when SQLite cannot tell why it could not write."""

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """On any failure nothing of it has happened. A full disk is NoRoom; any other error of the disk is SQLite's own."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._roll_back()
            if self._is_full(error):
                raise NoRoom(str(error)) from error
            raise
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _is_full(self, error: sqlite3.Error) -> bool:
        """SQLite calls a full quota, and a file that may not become longer, an error of writing."""
        code = getattr(error, "sqlite_errorcode", 0)
        if code in CANNOT_WRITE and self.is_writable is not None:
            return not self.is_writable(self._longest_file())
        return code == sqlite3.SQLITE_FULL

    def _longest_file(self) -> int:
        raise NotImplementedError

    def _insert(self, into: str, rows: list[tuple]) -> None:
        """Many rows in one statement. sqlite3 gives up the interpreter lock at every step of a
        statement, and executemany takes a step a row: the other threads then take turns with it."""
        for at in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[at : at + ROWS_AT_ONCE]
            places = f"({','.join('?' * len(some[0]))})"
            self._db.execute(f"{into} {','.join([places] * len(some))}", [value for row in some for value in row])

    def _scalar(self, query: str, *parameters: object):
        return self._db.execute(query, parameters).fetchone()[0]


def where(filters: dict[str, object | None]) -> tuple[str, list[object]]:
    given = {name: value for name, value in filters.items() if value is not None}
    if not given:
        return "", []
    return "WHERE " + " AND ".join(f"{name} = ?" for name in given), list(given.values())
