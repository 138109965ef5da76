"""Cutting what a broker sends into PUBLISH packets of QoS 0 and 1, and everything else.

Nearly all that a gateway receives is PUBLISH of QoS 1, whose receiver needs no state beyond the packet identifier
(MQTT 5 §4.3.2): read here, a message takes a tenth of the time that a full protocol engine takes. Everything else is
passed on byte for byte. So is all that comes after something unusual (QoS 2, a malformed or oversized packet), the
unusual included: judging it is the engine's task.
"""

from typing import Final, NamedTuple

_PUBLISH_MASK: Final = 0b1111_0100
_PUBLISH: Final = 0b0011_0000
"""The first byte of PUBLISH with QoS 0 or 1, under the mask; DUP and RETAIN are free."""
_QOS_1: Final = 0b0010
_UNKNOWN: Final = 2
"""Bytes of a packet's head that are needed before anything is known of it."""


class Publish(NamedTuple):
    """A received message. `packet_id` are its two bytes on the wire, none with QoS 0."""

    topic: str
    payload: bytes
    packet_id: bytes


def puback(packet_ids: list[bytes]) -> bytes:
    """PUBACK packets without a reason, that is success (MQTT 5 §3.4.2.1), one for each identifier."""
    return b"".join([b"\x40\x02" + packet_id for packet_id in packet_ids])


class PublishCutter:
    """Bytes in, messages and other packets out."""

    def __init__(self, *, mqtt5: bool, max_packet_bytes: int) -> None:
        self._mqtt5 = mqtt5
        self._max_packet_bytes = max_packet_bytes
        self._arrived: list[bytes] = []
        self._arrived_bytes = 0
        self._buffer = b""
        self._at = 0
        self._need = _UNKNOWN
        """Bytes that must be there from `_at` on before it is worth looking again."""
        self.given_up = False
        """Something unusual came: from there on everything is passed on."""
        self.stopped = False
        """The last `cut` ended because there was no more room."""

    def cut(self, data: bytes, room: int) -> tuple[list[Publish], list[bytes]]:
        """(Up to `room` messages, the other packets) of what is held and `data`; the rest is held."""
        if data:
            self._arrived.append(data)
            self._arrived_bytes += len(data)
        held = len(self._buffer) - self._at
        if self.given_up:
            self.stopped = False
            return [], [data] if data else []
        if held + self._arrived_bytes < self._need:
            self.stopped = False
            return [], []
        if self._arrived:  # joined only when a whole packet is there: a large one comes in many pieces
            self._buffer = b"".join([self._buffer[self._at :], *self._arrived])
            self._at, self._arrived, self._arrived_bytes = 0, [], 0
        messages: list[Publish] = []
        others: list[bytes] = []
        try:
            self._cut(messages, others, room)
        except ValueError:  # malformed, UnicodeDecodeError included
            self.given_up = True
            others.append(self._buffer[self._at :])
            self._buffer, self._at, self.stopped = b"", 0, False
        return messages, others

    def _cut(self, messages: list[Publish], others: list[bytes], room: int) -> None:
        buffer, at, mqtt5 = self._buffer, self._at, self._mqtt5
        end = len(buffer)
        self._need = _UNKNOWN
        self.stopped = False
        left = room
        while end - at >= 2:
            head, length, body = buffer[at], buffer[at + 1], at + 2
            if length > 127:
                if end - body >= 1 and (high := buffer[body]) < 128:  # nearly always: 128 to 16,383 bytes
                    length, body = length & 127 | high << 7, body + 1
                else:
                    length, body = _variable(buffer, at + 1)
                    if length < 0:
                        self._need = end - at + 1
                        break
            stop = body + length
            if stop - at > self._max_packet_bytes:
                raise ValueError("a packet above the limit")
            if stop > end:
                self._need = stop - at
                break
            if head & _PUBLISH_MASK == _PUBLISH:
                if not left:
                    self.stopped = True
                    break
                if length < 3:
                    raise ValueError("PUBLISH without a topic")
                topic_end = body + 2 + (buffer[body] << 8 | buffer[body + 1])
                start = topic_end + 2 if head & _QOS_1 else topic_end
                packet_id = buffer[topic_end:start]
                if mqtt5:
                    if start >= stop:
                        raise ValueError("PUBLISH is cut off")
                    if buffer[start]:
                        size, start = _variable(buffer, start)
                        start += size
                        if size < 0 or start > stop:
                            raise ValueError("PUBLISH with properties that are cut off")
                    else:
                        start += 1
                if start > stop or topic_end == body + 2 or packet_id == b"\0\0":
                    raise ValueError("PUBLISH is cut off, or without a topic or an identifier")
                messages.append(Publish(buffer[body + 2 : topic_end].decode(), buffer[start:stop], packet_id))
                left -= 1
            elif head & 0xF0 == _PUBLISH:
                raise ValueError("PUBLISH of QoS 2")
            else:
                others.append(buffer[at:stop])
            at = self._at = stop
        if at == end:
            self._buffer, self._at = b"", 0


def _variable(buffer: bytes, at: int) -> tuple[int, int]:
    """(A variable byte integer, the offset after it), MQTT 5 §1.5.5; (-1, at) when it is cut off. Raises ValueError."""
    value = 0
    for place in range(4):
        if at + place >= len(buffer):
            return -1, at
        byte = buffer[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a length of more than four bytes")
