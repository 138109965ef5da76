"""NetworkMessages as JSON (OPC 10000-14 §7.2.5.3): their DataSetMessages, each as exactly the bytes that came. Pure.

What may be left out by the content masks (§6.3.2.1.1) may be missing here: the header of the NetworkMessage (then
it is a DataSetMessage or an array of them) and that of the DataSetMessages (then only their payload is left).
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import parse_json

DATA: Final = "ua-data"
METADATA: Final = "ua-metadata"
STATUS: Final = "ua-status"
KEEP_ALIVE: Final = "ua-keepalive"
EVENT: Final = "ua-event"
_OF_DATA_SETS: Final = ("ua-keyframe", "ua-deltaframe", EVENT, KEEP_ALIVE)
_HEADER: Final = frozenset({"DataSetWriterId", "DataSetWriterName", "SequenceNumber", "MetaDataVersion"})
"""A field of a bare payload is hardly called so."""
MAX_MESSAGES: Final = 256
"""DataSetMessages of one NetworkMessage."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]')


class DataSetMessage(NamedTuple):
    """`raw` are its bytes as they came, `header` the same decoded, around the payload where that came alone."""

    raw: bytes
    header: dict[str, Any]

    @property
    def keeps_alive(self) -> bool:
        """Whether it tells nothing but that its writer lives (§7.2.5.4.1: it has no payload)."""
        return self.header.get("MessageType") == KEEP_ALIVE or self.header.get("Payload") is None


class NetworkMessage(NamedTuple):
    """`kind` is its MessageType, `publisher` "" where it names none. `messages` are there for `ua-data` only,
    `document` is the whole of what is not."""

    kind: str
    publisher: str
    messages: tuple[DataSetMessage, ...]
    document: dict[str, Any]


def network_message(payload: bytes) -> NetworkMessage:
    """Raises DecodeError: not_json, not_utf8, not_a_number, duplicate_name, not_pubsub, too_many."""
    document = parse_json(payload)
    text = payload.decode()
    if type(document) is list:
        return NetworkMessage(DATA, "", _messages(document, text, 0), {})
    if type(document) is not dict or not document:
        raise DecodeError("not_pubsub", "neither a NetworkMessage nor DataSetMessages")
    kind = document.get("MessageType", "")
    if type(kind) is str and kind.startswith("ua-") and kind not in (DATA, *_OF_DATA_SETS):
        return NetworkMessage(kind, publisher_of(document), (), document)
    if "Messages" not in document:
        return NetworkMessage(DATA, publisher_of(document), (_message(document, payload),), {})
    inner = document["Messages"]
    if kind != DATA:
        raise DecodeError("not_pubsub", "a NetworkMessage of data has the MessageType ua-data", "MessageType")
    start, end = next((start, end) for name, start, end in _members(text, 0) if name == "Messages")
    if type(inner) is not list:  # a single one need not be in an array
        inner, text, start = [inner], f"[{text[start:end]}]", 0
    return NetworkMessage(DATA, publisher_of(document), _messages(inner, text, start), document)


def data_set_message(raw: bytes) -> DataSetMessage:
    """One alone. Raises DecodeError."""
    document = parse_json(raw)
    if type(document) is not dict:
        raise DecodeError("not_pubsub", "a DataSetMessage is an object")
    return _message(document, raw)


def publisher_of(document: dict[str, Any]) -> str:
    """PublisherId as text; "" where there is none. Raises DecodeError for one that is neither text nor number."""
    found = document.get("PublisherId")
    if found is None:
        return ""
    if type(found) not in (str, int):
        raise DecodeError("not_pubsub", "a PublisherId is a text or a whole number", "PublisherId")
    return str(found)


def is_publisher(named: str, level: str) -> bool:
    """Whether a topic's level stands for this PublisherId, which may have signs that no level can have."""
    return named == level or named == unquote(level)


def writer_of(header: dict[str, Any]) -> str:
    """How a DataSetMessage or metadata names its writer: by id, else by name; "" where it does not.

    Raises DecodeError.
    """
    for name in ("DataSetWriterId", "DataSetWriterName"):
        found = header.get(name)
        if found is None or found == "":
            continue
        text = str(found)
        if type(found) not in (str, int) or len(text) > 200 or not text.isprintable():
            raise DecodeError("not_pubsub", f"a {name} is a text of 200 characters at most, or a whole number", name)
        return text
    return ""


def _messages(inner: list[Any], text: str, at: int) -> tuple[DataSetMessage, ...]:
    if len(inner) > MAX_MESSAGES:
        raise DecodeError("too_many", f"{len(inner)} DataSetMessages in one message, at most {MAX_MESSAGES}")
    if not inner or any(type(each) is not dict for each in inner):
        raise DecodeError("not_pubsub", "DataSetMessages are objects, and there is at least one", "Messages")
    pieces = [text[start:end].encode() for _, start, end in _members(text, at)]
    return tuple([_message(each, piece) for each, piece in zip(inner, pieces, strict=True)])


def _message(document: dict[str, Any], raw: bytes) -> DataSetMessage:
    payload = document.get("Payload")
    if type(payload) is dict or document.keys() & _HEADER or document.get("MessageType") == KEEP_ALIVE:
        if payload is not None and type(payload) is not dict:
            raise DecodeError("not_pubsub", "a Payload is an object", "Payload")
        return DataSetMessage(raw, document)
    return DataSetMessage(raw, {"Payload": document})


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of every value of the object or array whose bracket is the first after `at`; names are "" in
    arrays. The text is sound JSON."""
    depth, name, start, last = 0, "", -1, 0
    for token in _TOKEN.finditer(text, at):
        sign = token[0]
        if sign in "[{":
            depth += 1
            if depth == 1:
                start, last = token.end(), token.end()
                continue
        elif sign in "]}":
            depth -= 1
            if depth == 0:
                if text[start : token.start()].strip():
                    yield name, *_trimmed(text, start, token.start())
                return
        elif depth == 1 and sign == ":":
            name, start = json.loads(text[start : token.start()]), token.end()
        elif depth == 1 and sign == ",":
            yield name, *_trimmed(text, start, token.start())
            start = token.end()
        last = token.end()
    raise AssertionError(f"no end of the brackets after {last}: the text is no JSON")


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
