"""What the plain codecs of adapters on a broker must not see."""

from flexrelay_sdk import Codec, Decoded, DecodeError, Frame


class Checked:
    """A codec for batches that hold such a thing; it names the reason for the dead letter.

    `before` is what the adapter puts before a payload that stays as it came: only of those is the size judged, `most`
    bytes without it.
    """

    def __init__(self, codec: Codec, most: int, before: bytes = b"") -> None:
        self._codec = codec
        self._most = most
        self._before = before

    def decode(self, frame: Frame) -> Decoded:
        if not frame.credential:
            raise DecodeError("topic_not_expected", f"topic {frame.channel[:200]!r} is none of this adapter's", "topic")
        size = len(frame.payload) - len(self._before)
        if size > self._most and frame.payload.startswith(self._before):
            raise DecodeError("oversized", f"{size} bytes, at most {self._most} are taken", "payload")
        return self._codec.decode(frame)
