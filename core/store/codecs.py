"""How the commonest values travel between the core and PostgreSQL: columns as arrays, and moments.

asyncpg asks of every element of an array whether it is an array itself, by checks of abstract classes that cost more
than its encoding, and a batch of payments sends thousands. Here a column is one array of one dimension, joined at
once, byte for byte as asyncpg writes it. Of a batch many rows have the same moments: each is made once.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from uuid import UUID

import asyncpg.pgproto.pgproto

if TYPE_CHECKING:
    from core.store.unit_of_work import Connection

_MOMENT_OID: Final = 1184
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# What asyncpg makes of them: moments that no calendar has.
_ENDLESS: Final = {datetime.max: 2**63 - 1, datetime.min: -(2**63)}  # noqa: DTZ901 - asyncpg's, they have no zone
_ENDLESS_READ: Final = {number: moment for moment, number in _ENDLESS.items()}
_REMEMBERED: Final = 128

_HEAD: Final = struct.Struct(">iiI")  # dimensions, flags, type of the elements
_ONE_DIMENSION: Final = struct.Struct(">iiIii")  # the same, length, number of the first element
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_UUID_BYTES: Final = 16
_UNFIT: Final = (AttributeError, TypeError, ValueError, struct.error)


class _Kind(NamedTuple):
    """A type of elements, and what makes a column, or one value, the bytes that its `receive` function takes."""

    array_oid: int
    element_oid: int
    name: str
    column: Callable[[Sequence[Any]], bytes]
    """Raises one of `_UNFIT` where not all are of the one common type."""
    one: Callable[[Any], bytes]
    """Takes whatever is allowed, None excepted, and raises the same for the rest."""
    read: Callable[[bytes], Any]


def teach(connection: "Connection") -> None:
    """Let the connection send and read arrays of ids, texts, bytes and numbers, and moments, in these ways.

    A value that does not fit its type raises asyncpg.DataError, as always. Unlike asyncpg's, these ways take neither a
    number with a fraction for a whole one nor a moment without its zone, and an array has one dimension. They need no
    round trip: the types are PostgreSQL's own, and have the same number in every database.
    """
    settings = connection.get_settings()
    for kind in _KINDS:
        encode, decode = partial(_encoded, kind), partial(_decoded, kind.read)
        settings.add_python_codec(kind.array_oid, kind.name, "pg_catalog", [], "scalar", encode, decode, "binary")
    settings.add_python_codec(
        _MOMENT_OID, "timestamptz", "pg_catalog", [], "scalar", _moment_sent, _moment_read, "tuple"
    )


def _encoded(kind: _Kind, given: Any) -> bytes:
    column = given if type(given) is list else _listed(given)
    try:
        elements = kind.column(column) if column else b""
    except _UNFIT:
        elements = b"".join([_element(kind, place, each) for place, each in enumerate(column)])
    return _ONE_DIMENSION.pack(1, 0, kind.element_oid, len(column), 1) + elements


def _listed(given: Any) -> list[Any]:
    if isinstance(given, Collection) and not isinstance(given, str | bytes | bytearray | memoryview | Mapping):
        return list(given)
    raise TypeError(f"a column of values expected, not {type(given).__name__}")


def _element(kind: _Kind, place: int, value: Any) -> bytes:
    if value is None:
        return _NULL
    try:
        raw = kind.one(value)
    except _UNFIT as error:
        raise ValueError(f"invalid array element at index {place}: {error}") from None
    return _LENGTH.pack(len(raw)) + raw


def _decoded(read: Callable[[bytes], Any], data: bytes) -> list[Any]:
    dimensions, _, _ = _HEAD.unpack_from(data)
    place = _HEAD.size + 8 * dimensions
    found: list[Any] = []
    while place < len(data):
        [size] = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if size < 0:
            found.append(None)
        else:
            found.append(read(data[place : place + size]))
            place += size
    # Arrays within an array, should a query ever make them: the last dimension is the innermost.
    for dimension in range(dimensions - 1, 0, -1):
        [count] = _LENGTH.unpack_from(data, _HEAD.size + 8 * dimension)
        found = [found[first : first + count] for first in range(0, len(found), count)]
    return found


def _of_one_length(length: int, raw: Sequence[bytes]) -> bytes:
    before = _LENGTH.pack(length)
    return before + before.join(raw)


def _ids(column: Sequence[UUID]) -> bytes:
    return _of_one_length(_UUID_BYTES, [each.bytes for each in column])


def _id(value: Any) -> bytes:
    return UUID(value).bytes if isinstance(value, str) else cast("UUID", value).bytes


def _texts(column: Sequence[str]) -> bytes:
    return _pieces([each.encode() for each in column])


def _pieces(column: Sequence[bytes]) -> bytes:
    parts = [b""] * (2 * len(column))
    # Not just len: what else has one counts something else than bytes.
    parts[::2] = map(_LENGTH.pack, map(bytes.__len__, column))
    parts[1::2] = column
    return b"".join(parts)


def _piece(value: Any) -> bytes:
    return memoryview(value).tobytes()


def _numbers(length: int, sign: str, column: Sequence[int]) -> bytes:
    values = [length] * (2 * len(column))
    values[1::2] = column
    return struct.pack(">" + f"i{sign}" * len(column), *values)


def _number_read(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


_KINDS: Final = (
    _Kind(2951, 2950, "uuid[]", _ids, _id, asyncpg.pgproto.pgproto.UUID),
    _Kind(1009, 25, "text[]", _texts, str.encode, bytes.decode),
    _Kind(1001, 17, "bytea[]", _pieces, _piece, bytes),
    _Kind(1016, 20, "bigint[]", partial(_numbers, 8, "q"), struct.Struct(">q").pack, _number_read),
    _Kind(1007, 23, "integer[]", partial(_numbers, 4, "i"), struct.Struct(">i").pack, _number_read),
)


def _moment_sent(moment: datetime) -> tuple[int]:
    if moment.tzinfo is None:
        if moment not in _ENDLESS:
            raise ValueError("a moment without its zone")
        return (_ENDLESS[moment],)
    return ((moment - _EPOCH) // _MICROSECOND,)


@lru_cache(maxsize=_REMEMBERED)
def _moment_read(sent: tuple[int]) -> datetime:
    [microseconds] = sent
    endless = _ENDLESS_READ.get(microseconds)
    return _EPOCH + timedelta(0, 0, microseconds) if endless is None else endless
