"""A TCP way that can be made bad: cut (also in the middle of a packet), silent, slow, narrow.

It runs on a thread of its own; every method may be called from any thread, and has taken effect when it returns.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self

LOOPBACK = "127.0.0.1"
Tap = Callable[[int, bool, bytes], None]
"""Told (connection number, whether towards the server, bytes) of all that passes."""


class Chaos:
    """Listens on `port` and passes everything on to `to_port`, unless it is told otherwise."""

    def __init__(self, to_port: int, tap: Tap | None = None) -> None:
        self.to_port = to_port
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.cuts = self.cut_mid_packet = self.accepted = 0
        self._tap = tap
        self._silent = False
        self._refusing = False
        self._quota: int | None = None
        self._mute: set[int] = set()
        self._ways: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._open = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._started.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._cut_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    # -- what can be done to it -----------------------------------------------------------------

    def cut(self) -> None:
        """End every connection now, with a reset; new ones are accepted."""
        self._do(self._cut_all)

    def cut_after(self, more_bytes: int) -> None:
        """Let so many bytes more pass, of all connections together, then cut wherever that is in a packet."""
        self._do(lambda: setattr(self, "_quota", more_bytes))

    def refuse(self) -> None:
        """Cut everything, and every new connection at once."""
        self._do(lambda: (setattr(self, "_refusing", True), self._cut_all()))

    def fall_silent(self) -> None:
        """Pass nothing on any more and keep every connection open: half-open, as after a lost radio link."""
        self._do(lambda: (setattr(self, "_silent", True), self._open.clear()))

    def lose_answers(self) -> None:
        """What the server says on the connections that are open now gets lost; they stay open, and new ones are well."""
        self._do(lambda: self._mute.update(self._ways))

    def heal(self) -> None:
        """As good as new. What stood in a silent connection is lost with it: it is cut."""

        def mend() -> None:
            was_silent, self._silent, self._refusing, self._quota = self._silent, False, False, None
            self.delay_s = self.bytes_per_s = 0.0
            if was_silent:
                self._cut_all()
            self._open.set()

        self._do(mend)

    # -- its thread -----------------------------------------------------------------------------

    def _do(self, work: Callable[[], Any]) -> None:
        done: Future[None] = Future()

        def now() -> None:
            try:
                work()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._loop.call_soon_threadsafe(now)
        done.result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> None:
            self._open.set()
            server = await asyncio.start_server(self._pass, LOOPBACK, 0, backlog=1024)
            self._started.set_result(server.sockets[0].getsockname()[1])

        self._loop.create_task(begin())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _pass(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        if self._refusing:
            _reset(near_out)
            return
        try:
            far_in, far_out = await asyncio.open_connection(LOOPBACK, self.to_port)
        except OSError:
            _reset(near_out)
            return
        for writer in (near_out, far_out):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways[number] = (near_out, far_out)
        tasks = [
            asyncio.create_task(self._carry(number, True, near_in, far_out)),
            asyncio.create_task(self._carry(number, False, far_in, near_out)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ways.pop(number, None)
            for task in tasks:
                task.cancel()
            for writer in (near_out, far_out):
                writer.close()

    async def _carry(self, number: int, up: bool, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(4096 if self.bytes_per_s else 65_536):
                await self._open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                if self._quota is not None:
                    data, self._quota = data[: self._quota], self._quota - len(data)
                    if self._quota <= 0:
                        self._quota = None
                        target.write(data)
                        await target.drain()
                        self.cut_mid_packet += 1
                        self._cut_all()
                        return
                if not up and number in self._mute:
                    continue
                if self._tap is not None:
                    self._tap(number, up, data)
                target.write(data)
                await target.drain()

    def _cut_all(self) -> None:
        for near, far in list(self._ways.values()):
            self.cuts += 1
            for writer in (near, far):
                _reset(writer)
        self._ways.clear()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of an orderly end; what was written shortly before still leaves the socket's buffer or not."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
