"""NetworkMessages as JSON (OPC 10000-14 §7.2.5.3): their DataSetMessages, each as exactly the bytes that came. Pure.

What may be left out by the content masks (§6.3.2.1.1) may be missing here: the header of the NetworkMessage (then
it is a DataSetMessage or an array of them) and that of the DataSetMessages (then only their payload is left).
"""

import json
import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import parse_json, parse_json_at

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
_WHITE: Final = r"[ \t\n\r]*"
_MESSAGES: Final = re.compile(rf'"Messages"{_WHITE}:{_WHITE}\[{_WHITE}(?![\] \t\n\r])')
_NEXT: Final = re.compile(f"{_WHITE},{_WHITE}")
_SPACE: Final = re.compile(_WHITE)
_MEMBER: Final = re.compile(rf'{_WHITE}([{{,]){_WHITE}("(?:[^"\\\x00-\x1f]|\\.)*"){_WHITE}:{_WHITE}')
_ELEMENT: Final = re.compile(rf"{_WHITE}([\[,]){_WHITE}(?![\] \t\n\r])")
_END: Final = {
    (bracket, bool(empty)): re.compile(f"{empty}{_WHITE}{re.escape(bracket)}{_WHITE}")
    for bracket, empty in (("}", ""), ("}", r"\{"), ("]", ""), ("]", r"\["))
}
"""By the closing bracket, and whether there is nothing before it."""


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
    document, pieces = _taken_apart(payload)
    if type(document) is list:
        return NetworkMessage(DATA, "", _messages(document, pieces), {})
    if type(document) is not dict or not document:
        raise DecodeError("not_pubsub", "neither a NetworkMessage nor DataSetMessages")
    kind = document.get("MessageType", "")
    if type(kind) is str and kind.startswith("ua-") and kind not in (DATA, *_OF_DATA_SETS):
        return NetworkMessage(kind, publisher_of(document), (), document)
    if "Messages" not in document:
        return NetworkMessage(DATA, publisher_of(document), (_message(document, payload),), {})
    if kind != DATA:
        raise DecodeError("not_pubsub", "a NetworkMessage of data has the MessageType ua-data", "MessageType")
    inner = document["Messages"]
    # a single one need not be in an array
    messages = _messages(inner if type(inner) is list else [inner], pieces)
    return NetworkMessage(DATA, publisher_of(document), messages, document)


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


def _messages(inner: list[Any], pieces: list[str]) -> tuple[DataSetMessage, ...]:
    if len(inner) > MAX_MESSAGES:
        raise DecodeError("too_many", f"{len(inner)} DataSetMessages in one message, at most {MAX_MESSAGES}")
    if not inner or any(type(each) is not dict for each in inner):
        raise DecodeError("not_pubsub", "DataSetMessages are objects, and there is at least one", "Messages")
    return tuple([_message(each, piece.encode()) for each, piece in zip(inner, pieces, strict=True)])


def _message(document: dict[str, Any], raw: bytes) -> DataSetMessage:
    payload = document.get("Payload")
    if type(payload) is dict or document.keys() & _HEADER or document.get("MessageType") == KEEP_ALIVE:
        if payload is not None and type(payload) is not dict:
            raise DecodeError("not_pubsub", "a Payload is an object", "Payload")
        return DataSetMessage(raw, document)
    return DataSetMessage(raw, {"Payload": document})


def _taken_apart(payload: bytes) -> tuple[Any, list[str]]:
    """The JSON value, and the texts of the elements of its array, else of its member `Messages`. Raises DecodeError."""
    try:
        text = payload.decode()
        return _usual(text) or _Walk(text).whole()
    except DecodeError:
        raise
    except (ValueError, RecursionError):
        if type(parse_json(payload)) in (dict, list):  # it says why, else
            raise DecodeError("not_json", "nested too deeply") from None
        raise DecodeError("not_pubsub", "neither a NetworkMessage nor DataSetMessages") from None


def _usual(text: str) -> tuple[Any, list[str]] | None:
    """The same as `_Walk` of an object with an array `Messages`, faster; None for all else.

    Without a backslash the name can stand in no text, and when it stands in the object it stands nowhere else.
    """
    opening = _MESSAGES.search(text)
    if opening is None or text[0] != "{" or "\\" in text or text.count('"Messages"') > 1:
        return None
    messages, pieces = [], []
    start = at = opening.end()
    while True:
        message, end = parse_json_at(text, at)
        messages.append(message)
        pieces.append(text[at:end])
        following = _NEXT.match(text, end)
        if following is None:
            break
        at = following.end()
    document, rest = parse_json_at(f"{text[:start]}{text[end:]}", 0)
    if rest + end - start != len(text) or document.get("Messages") != []:
        return None
    document["Messages"] = messages
    return document, pieces


class _Walk:
    """One pass over a JSON text. Raises ValueError, RecursionError where it is none, DecodeError as `parse_json`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._pieces: list[str] = []

    def whole(self) -> tuple[Any, list[str]]:
        text = self._text
        self._at = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches nothing, too
        found = self._array() if text[self._at : self._at + 1] == "[" else self._object()
        if self._at != len(text):
            raise ValueError("there is more after the value")
        return found, self._pieces

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        text, before = self._text, "{"
        while (member := _MEMBER.match(text, self._at)) is not None and member[1] == before:
            before = ","
            self._at = member.end()
            name = json.loads(member[2]) if "\\" in member[2] else member[2][1:-1]
            if name in found:
                raise DecodeError("duplicate_name", "a name stands twice in one object")
            if name != "Messages":
                found[name], self._at = parse_json_at(text, self._at)
            elif text[self._at : self._at + 1] == "[":
                found[name] = self._array()
            else:
                found[name] = self._piece()
        self._end("}", empty=not found)
        return found

    def _array(self) -> list[Any]:
        found: list[Any] = []
        before = "["
        while (element := _ELEMENT.match(self._text, self._at)) is not None and element[1] == before:
            before = ","
            self._at = element.end()
            found.append(self._piece())
        self._end("]", empty=not found)
        return found

    def _piece(self) -> Any:
        start = self._at
        value, self._at = parse_json_at(self._text, start)
        self._pieces.append(self._text[start : self._at])
        return value

    def _end(self, bracket: str, *, empty: bool) -> None:
        match = _END[bracket, empty].match(self._text, self._at)
        if match is None:
            raise ValueError(f"no {bracket} at {self._at}")
        self._at = match.end()
