"""What the parts of the journal share: the one connection, and a few words of SQL."""

import sqlite3


class Part:
    """Some tables of the journal. All parts live in one `Journal` and use its connection."""

    _db: sqlite3.Connection

    def _scalar(self, query: str, *parameters: object):
        return self._db.execute(query, parameters).fetchone()[0]


def where(filters: dict[str, object | None]) -> tuple[str, list[object]]:
    given = {name: value for name, value in filters.items() if value is not None}
    if not given:
        return "", []
    return "WHERE " + " AND ".join(f"{name} = ?" for name in given), list(given.values())
