"""What the parts of the journal share: the one connection, and a few words of SQL."""

import sqlite3

ROWS_AT_ONCE = 100


class Part:
    """Some tables of the journal. All parts live in one `Journal` and use its connection."""

    _db: sqlite3.Connection

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
