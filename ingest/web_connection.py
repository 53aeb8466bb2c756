"""One connection to the page: nobody holds it without saying what they want.

Each connection is an open file of the worker, which needs its files for journal, broker and store. So there are never
more than `MOST_CONNECTIONS`: when there is one too many, whoever has kept us waiting longest is hung up on. So is
whoever does not say a whole request within `REQUEST_S`.
"""

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, h11

MOST_CONNECTIONS = 256
MOST_AT_ONCE, MOST_WAITING = 16, 512
"""So many are taken up at a time, before any of them is looked at; so many more the system keeps waiting."""

REQUEST_S = 10.0


class Connection(H11Protocol):
    """uvicorn's own, with an eye on the clock while it is the other side's turn."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()
        if len(self.connections) > MOST_CONNECTIONS:
            waited_for = [each for each in self.connections if each._due is not None]
            min(waited_for, key=lambda each: each._due.when())._hang_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._wait_no_more()
        elif self._due is None:
            self._due = self.loop.call_later(REQUEST_S, self._hang_up)

    def _wait_no_more(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _hang_up(self) -> None:
        self._wait_no_more()
        self.connections.discard(self)  # it is counted no more, though its end is told in a moment
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's own. Its `backlog` is both what it takes up at a time and what may wait; the second may be more."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(MOST_WAITING)
