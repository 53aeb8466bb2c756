"""A disk that can lose power, below the real SQLite.

`Recorder` puts itself between SQLite and the files, for the process it runs in: it takes the place of the default VFS
(https://www.sqlite.org/vfs.html), hands every call on to the ordinary one, and notes each write, truncation, sync,
creation and removal below the directories it watches. Nothing of SQLite or of the product is changed. From the record,
`Disk` tells what the files may hold after the machine went down at any moment of it: all that had been synced, and of
the rest whatever the disk pleased.
"""

import ctypes
import os
import random
import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

SECTOR_BYTES = 512

_OK, _OPEN_CREATE = 0, 0x4
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_OPEN = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER)
_DELETE = ctypes.CFUNCTYPE(_INT, _POINTER, ctypes.c_char_p, _INT)
_OPEN_DIRECTORY = ctypes.CFUNCTYPE(_INT, ctypes.c_char_p, _POINTER)
_CLOSE = ctypes.CFUNCTYPE(_INT, _POINTER)
_WRITE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(_INT, _POINTER, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(_INT, _POINTER, _INT)
_SET_SYSTEM_CALL = ctypes.CFUNCTYPE(_INT, _POINTER, ctypes.c_char_p, _POINTER)
_GET_SYSTEM_CALL = ctypes.CFUNCTYPE(_POINTER, _POINTER, ctypes.c_char_p)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs of sqlite3.h."""

    _fields_ = [
        ("version", _INT), ("file_bytes", _INT), ("longest_path", _INT), ("next", _POINTER), ("name", ctypes.c_char_p),
        ("app_data", _POINTER), ("open", _POINTER), ("delete", _POINTER),
        *((name, _POINTER) for name in ("access", "full_path", "dl_open", "dl_error", "dl_sym", "dl_close", "randomness",
          "sleep", "current_time", "last_error", "current_time_int64", "set_system_call", "get_system_call", "next_system_call")),
    ]  # fmt: skip


class _Methods(ctypes.Structure):
    """sqlite3_io_methods of sqlite3.h."""

    _fields_ = [
        ("version", _INT),
        *((name, _POINTER) for name in ("close", "read", "write", "truncate", "sync", "size", "lock", "unlock", "is_reserved",
          "control", "sector_bytes", "characteristics", "shm_map", "shm_lock", "shm_barrier", "shm_unmap", "fetch", "unfetch")),
    ]  # fmt: skip


class _File(ctypes.Structure):
    _fields_ = [("methods", ctypes.POINTER(_Methods))]


# -- what is noted --------------------------------------------------------------------------------


class Created(NamedTuple):
    name: str
    file: int


class Removed(NamedTuple):
    name: str


class Written(NamedTuple):
    file: int
    at: int
    data: bytes


class Truncated(NamedTuple):
    file: int
    size: int


class Synced(NamedTuple):
    file: int


class DirectorySynced(NamedTuple):
    pass


class Mark(NamedTuple):
    """Something that happened between two of these, noted by whoever watches."""

    what: Any


Event = Created | Removed | Written | Truncated | Synced | DirectorySynced | Mark


@dataclass
class Record:
    """What has been done to the files of one directory, in order."""

    events: list[Event] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    """Name → the file that it names now."""
    count: int = 0

    def opened(self, name: str, is_new: bool) -> int:
        if is_new or name not in self.files:
            self.count += 1
            self.files[name] = self.count
            self.events.append(Created(name, self.count))
        return self.files[name]


class Recorder:
    """Takes the place of SQLite's default VFS until it is closed. Raises LookupError where that cannot be done."""

    def __init__(self) -> None:
        self._library = _library()
        find = self._library.sqlite3_vfs_find
        find.restype, find.argtypes = _POINTER, [ctypes.c_char_p]
        self._below_at = find(None)
        self._below = _Vfs.from_address(self._below_at)
        self._records: dict[str, Record] = {}
        self._open_files: dict[int, tuple[Record, int]] = {}
        self._methods: dict[int, _Methods] = {}
        self._keep: list[Any] = []  # what C code points to
        self._below_open, self._below_delete = _OPEN(self._below.open), _DELETE(self._below.delete)
        self._own = _Vfs.from_buffer_copy(self._below)
        self._own.next, self._own.name = None, b"recorder"
        self._own.open, self._own.delete = self._address(_OPEN(self._open)), self._address(_DELETE(self._delete))
        if self._below.version < 3:
            raise LookupError(f"SQLite's VFS here is {self._below.name.decode()!r}, which cannot be looked into")
        get, self._put_system_call = _GET_SYSTEM_CALL(self._below.get_system_call), _SET_SYSTEM_CALL(self._below.set_system_call)
        self._below_open_directory = _OPEN_DIRECTORY(get(self._below_at, b"openDirectory"))
        if _OK != self._put_system_call(self._below_at, b"openDirectory", self._address(_OPEN_DIRECTORY(self._open_directory))):
            raise LookupError("SQLite here does not tell when it syncs a directory")
        self._library.sqlite3_vfs_register(ctypes.byref(self._own), 1)
        if not self._is_asked():
            self.close()
            raise LookupError("this Python's sqlite3 does not use the SQLite that can be reached")

    def _is_asked(self) -> bool:
        """Whether what Python writes comes by here."""
        with tempfile.TemporaryDirectory() as directory:
            record = self.watch(Path(directory))
            db = sqlite3.connect(Path(directory) / "probe.db")
            db.execute("CREATE TABLE probe (n)")
            db.close()
            self.forget(Path(directory))
        return any(isinstance(event, Written) for event in record.events) and DirectorySynced() in record.events

    def watch(self, directory: Path) -> Record:
        """The record of what is done in a directory from now on."""
        return self._records.setdefault(str(directory.resolve()), Record())

    def forget(self, directory: Path) -> None:
        self._records.pop(str(directory.resolve()), None)

    def close(self) -> None:
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._own))
        self._library.sqlite3_vfs_register(_POINTER(self._below_at), 1)
        self._put_system_call(self._below_at, b"openDirectory", None)

    def _address(self, function: Any) -> int:
        self._keep.append(function)
        return ctypes.cast(function, _POINTER).value or 0

    # -- called by SQLite ------------------------------------------------------------------------

    def _open(self, vfs: int, path: int | None, file_at: int, flags: int, flags_out: int | None) -> int:
        name = os.fsdecode(ctypes.string_at(path)) if path else ""
        record = self._records.get(os.path.dirname(name))
        is_new = record is not None and not os.path.exists(name)
        result = self._below_open(self._below_at, path, file_at, flags, flags_out)
        if result == _OK and record is not None:
            self._open_files[file_at] = (record, record.opened(os.path.basename(name), is_new))
            file = _File.from_address(file_at)
            file.methods = ctypes.pointer(self._methods_over(ctypes.addressof(file.methods.contents)))
        return result

    def _methods_over(self, below_at: int) -> _Methods:
        """The ordinary methods, with those that change a file replaced by ones that note it."""
        if below_at in self._methods:
            return self._methods[below_at]
        below = _Methods.from_address(below_at)
        close, write, truncate, sync = _CLOSE(below.close), _WRITE(below.write), _TRUNCATE(below.truncate), _SYNC(below.sync)

        def on_close(file_at: int) -> int:
            self._open_files.pop(file_at, None)
            return close(file_at)

        def on_write(file_at: int, data: int, size: int, at: int) -> int:
            result = write(file_at, data, size, at)
            if result == _OK:
                record, file = self._open_files[file_at]
                record.events.append(Written(file, at, ctypes.string_at(data, size)))
            return result

        def on_truncate(file_at: int, size: int) -> int:
            result = truncate(file_at, size)
            if result == _OK:
                record, file = self._open_files[file_at]
                record.events.append(Truncated(file, size))
            return result

        def on_sync(file_at: int, flags: int) -> int:
            record, file = self._open_files[file_at]
            at = len(record.events)
            result = sync(file_at, flags)
            if result == _OK:
                record.events.insert(at, Synced(file))  # before the sync of its directory, if that was done as well
            return result

        methods = _Methods.from_buffer_copy(below)
        methods.close, methods.write = self._address(_CLOSE(on_close)), self._address(_WRITE(on_write))
        methods.truncate, methods.sync = self._address(_TRUNCATE(on_truncate)), self._address(_SYNC(on_sync))
        self._methods[below_at] = methods
        return methods

    def _delete(self, vfs: int, path: bytes, sync_directory: int) -> int:
        name = os.fsdecode(path)
        record = self._records.get(os.path.dirname(name))
        was_there = os.path.exists(name)
        at = len(record.events) if record else 0
        result = self._below_delete(self._below_at, path, sync_directory)
        if record is not None and was_there and result == _OK:
            record.events.insert(at, Removed(os.path.basename(name)))  # before the sync of its directory
            record.files.pop(os.path.basename(name), None)
        return result

    def _open_directory(self, path: bytes, descriptor: int) -> int:
        """SQLite opens a directory to sync it, and for nothing else. `path` is of a file in it."""
        record = self._records.get(os.path.dirname(os.fsdecode(path)))
        if record is not None:
            record.events.append(DirectorySynced())
        return self._below_open_directory(path, descriptor)


def _library() -> ctypes.CDLL:
    """The library that Python's sqlite3 itself calls."""
    import _sqlite3

    at = getattr(_sqlite3, "__file__", None)
    library = ctypes.CDLL(at)
    try:
        library.sqlite3_libversion.restype = ctypes.c_char_p
        version = library.sqlite3_libversion().decode()
        _ = library.sqlite3_vfs_register
    except AttributeError as error:
        raise LookupError("this Python has SQLite built in and shows none of its functions") from error
    if version != sqlite3.sqlite_version:
        raise LookupError(f"this Python uses SQLite {sqlite3.sqlite_version}, and what can be reached is {version}")
    return library


# -- what a power cut leaves ----------------------------------------------------------------------


class Loss(StrEnum):
    """What becomes of that which was not synced when the power went."""

    NOTHING_KEPT = "nothing of it is there"
    ALL_KEPT = "all of it is there"
    PREFIX = "of each file, what was done first, the last write torn"
    SECTORS = "any sectors of it, in any order"
    GARBAGE = "any sectors of it, and others hold garbage"


@dataclass
class _Inode:
    durable: bytes = b""
    pending: list[Written | Truncated] = field(default_factory=list)


class Disk:
    """The files of one directory: as every process sees them, and as they surely are on the disk."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        """`files`: what is surely on it."""
        self._inodes = {n: _Inode(data) for n, data in enumerate((files or {}).values(), start=1)}
        self.names: dict[str, int] = dict(zip(files or {}, self._inodes, strict=True))
        self._durable_names = dict(self.names)
        self._may_be: dict[str, set[int | None]] = {}  # since the directory was synced

    def record_from(self, record: Record) -> None:
        """Have files that are there be known by the same numbers in a record that begins now."""
        record.files, record.count = dict(self.names), max(self._inodes, default=0)

    def apply(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Written(file) | Truncated(file):
                    self._inodes[file].pending.append(event)
                case Synced(file):
                    inode = self._inodes[file]
                    inode.durable, inode.pending = _done(inode.durable, inode.pending), []
                case Created(name, file):
                    self._inodes[file] = _Inode()
                    self._rename(name, file)
                case Removed(name):
                    self._rename(name, None)
                case DirectorySynced():
                    self._durable_names, self._may_be = dict(self.names), {}

    def _rename(self, name: str, file: int | None) -> None:
        self._may_be.setdefault(name, {self._durable_names.get(name)}).add(file)
        if file is None:
            self.names.pop(name, None)
        else:
            self.names[name] = file

    def seen(self) -> dict[str, bytes]:
        """Name → contents, as a process sees them, whatever is synced."""
        return {name: _done(self._inodes[file].durable, self._inodes[file].pending) for name, file in self.names.items()}

    def after_power_cut(self, loss: Loss, chance: random.Random) -> dict[str, bytes]:
        """Name → contents, as the next start may find them."""
        left: dict[str, bytes] = {}
        for name in sorted({*self.names, *self._durable_names, *self._may_be}):
            file = self._which(name, loss, chance)
            if file is not None:
                left[name] = _survives(self._inodes[file], loss, chance)
        return left

    def _which(self, name: str, loss: Loss, chance: random.Random) -> int | None:
        if loss is Loss.NOTHING_KEPT:
            return self._durable_names.get(name)
        if loss is Loss.ALL_KEPT or name not in self._may_be:
            return self.names.get(name)
        return chance.choice(sorted(self._may_be[name], key=lambda file: file or 0))


def _done(contents: bytes, changes: Iterable[Written | Truncated]) -> bytes:
    if not changes:
        return contents
    found = bytearray(contents)
    for change in changes:
        _do(found, change)
    return bytes(found)


def _do(contents: bytearray, change: Written | Truncated) -> None:
    if isinstance(change, Truncated):
        if change.size < len(contents):
            del contents[change.size :]
        else:
            contents.extend(bytes(change.size - len(contents)))
        return
    if change.at > len(contents):
        contents.extend(bytes(change.at - len(contents)))
    contents[change.at : change.at + len(change.data)] = change.data


def _survives(inode: _Inode, loss: Loss, chance: random.Random) -> bytes:
    if loss is Loss.NOTHING_KEPT or not inode.pending:
        return inode.durable
    if loss is Loss.ALL_KEPT:
        return _done(inode.durable, inode.pending)
    contents = bytearray(inode.durable)
    pieces = [piece for change in inode.pending for piece in _sectors(change)]
    if loss is Loss.PREFIX:
        pieces = pieces[: chance.randint(0, len(pieces))]
    else:
        if chance.random() < 0.5:
            chance.shuffle(pieces)
        kept = chance.choice((0.1, 0.5, 0.9))
        pieces = [piece for piece in pieces if chance.random() < kept]
    for piece in pieces:
        if loss is Loss.GARBAGE and isinstance(piece, Written) and chance.random() < 0.3:
            piece = Written(piece.file, piece.at, chance.randbytes(len(piece.data)))
        _do(contents, piece)
    return bytes(contents)


def _sectors(change: Written | Truncated) -> list[Written | Truncated]:
    """A write as the disk may do it: sector by sector, none torn."""
    if isinstance(change, Truncated):
        return [change]
    pieces: list[Written | Truncated] = []
    at, end = change.at, change.at + len(change.data)
    while at < end:
        until = min(end, at - at % SECTOR_BYTES + SECTOR_BYTES)
        pieces.append(Written(change.file, at, change.data[at - change.at : until - change.at]))
        at = until
    return pieces
