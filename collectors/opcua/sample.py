"""One value that a server sent, as plain Python: what the library decoded and what `fast` read look the same. Pure.

Promises: nothing of the library remains in it, so that a sample may be kept and compared with any other.

May import: the standard library.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

Sample: TypeAlias = tuple[int, int, Any, int, int | None, int | None]
"""Client handle, built-in type (1..25, 0 = null), value (see `plain`), status code, source time, server time.

Times are ticks of 100 ns since 1601 UTC as on the wire, None = not sent. A tuple, because there is one for each value.
"""


class Message(NamedTuple):
    """What a server published.

    Attributes:
        subscription: the server's id.
        number: of the message; a keep-alive has the next message's.
        server_ticks: the server's clock as the response tells it.
        samples: in the order they came.
        statuses: changes of the subscription's own status.
        news: whether it is a message rather than a keep-alive.
    """

    subscription: int
    number: int
    server_ticks: int | None
    samples: list[Sample]
    statuses: tuple[int, ...] = ()
    news: bool = True


TICKS_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)
LAST_TICKS: Final = 2_650_467_743_990_000_000
"""9999-12-31 23:59:59; later ones mean that (OPC UA Part 6, 5.2.2.5)."""
_MICROSECOND: Final = timedelta(microseconds=1)
_XML_ELEMENT, _NODE_ID, _EXPANDED_NODE_ID, _STATUS, _NAME, _TEXT = 16, 17, 18, 19, 20, 21
_GUID: Final = 14


def sample_of(handle: int, data_value: Any) -> Sample:
    """The sample in what the library decoded.

    Args:
        handle: the client's, of the node.
        data_value: the library's, or of its shape.
    """
    variant, status = data_value.Value, data_value.StatusCode
    type_id = int(variant.VariantType.value) if variant is not None else 0
    return (
        handle,
        type_id,
        plain(type_id, variant.Value) if variant is not None else None,
        status.value if status is not None else 0,
        _ticks(data_value.SourceTimestamp),
        _ticks(data_value.ServerTimestamp),
    )


def plain(type_id: int, value: Any) -> Any:
    """A value as the library decoded it, without the library's classes.

    Numbers, booleans, bytes and times stay; all kinds of texts and identifiers are str, a status is its number, an
    array is a list. Structures stay what they are: they are never read.
    """
    if value is None or type_id <= 13:
        return value
    if isinstance(value, list | tuple):
        return [plain(type_id, part) for part in value]
    if type_id == _GUID:
        return str(value)
    if type_id == _TEXT:
        return value.Text
    if type_id == _NAME:
        return value.Name
    if type_id == _STATUS:
        return value.value
    if type_id in (_NODE_ID, _EXPANDED_NODE_ID):
        return str(value.to_string())
    if type_id == _XML_ELEMENT:
        return value.Value
    return value


def message_of(ua: Any, subscription: int, message: Any, server_time: datetime | None) -> Message:
    """The message in what the library decoded.

    Args:
        ua: the library's types.
        subscription: the server's id.
        message: the library's NotificationMessage.
        server_time: of the response header.
    """
    samples: list[Sample] = []
    statuses = []
    for data in message.NotificationData or ():
        if isinstance(data, ua.DataChangeNotification):
            samples.extend(sample_of(item.ClientHandle, item.Value) for item in data.MonitoredItems or ())
        elif isinstance(data, ua.StatusChangeNotification):
            statuses.append(data.Status.value)
    number, news = message.SequenceNumber, bool(message.NotificationData)
    return Message(subscription, number, _ticks(server_time), samples, tuple(statuses), news)


def to_datetime(ticks: int) -> datetime:
    """The time as the library has it: to the microsecond, from 1601 to 9999."""
    if ticks >= LAST_TICKS:
        ticks = LAST_TICKS
    return TICKS_EPOCH + timedelta(microseconds=max(0, ticks) // 10)


def _ticks(time: datetime | None) -> int | None:
    return (time - TICKS_EPOCH) // _MICROSECOND * 10 if time is not None else None
