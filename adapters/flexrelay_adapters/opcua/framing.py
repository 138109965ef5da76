"""Notifications → frames: each device's items, exactly as they came, under the device's node table.

It also sees to it that no instant of a device is told twice with other registers: what a new subscription tells again
is left out, and a change whose instant has been framed before gets a frame with a shift of some milliseconds (see
`flexrelay_adapters.opcua.frame`).
"""

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from flexrelay_adapters.opcua.config import OpcuaConfig
from flexrelay_adapters.opcua.frame import CHANGES, HISTORY, head, node_table, open_frame
from flexrelay_adapters.opcua.wire import (
    BAD,
    BY_SERVER,
    BY_SOURCE,
    HEAD,
    NOTHING_YET,
    STATUS_AT,
    STATUS_MASK,
    Changes,
    Item,
    Malformed,
    item_at,
    milliseconds,
    scan,
    ticks,
)
from flexrelay_sdk import Frame

PROTOCOL: Final = "opcua"
FRAME_BYTES: Final = 60_000
"""A frame's greatest size; ingest takes 64 KiB."""
HISTORY_BYTES: Final = 6_000
"""Of a frame of history (about 200 values): one that contradicts the journal has no more than its frame refused."""
_RECENT: Final = 8
_SHAPES: Final = 32
_SHIFTS: Final = 200
_HANDLE: Final = struct.Struct("<I")


class Framed(NamedTuple):
    """Frames of one notification, and what they make known: the items' client handles and times (ticks). `newer`:
    every time is later than all that was known before."""

    frames: list[Frame]
    handles: Sequence[int]
    times: Sequence[int]
    newer: bool = False


class _Device:
    """What frames of one device look like, and its newest ones."""

    def __init__(self, credential: str, nodes: Sequence[tuple[int, str]]) -> None:
        self.credential = credential
        self.table = node_table(nodes)
        self.head = head(self.table)
        self.handles = tuple(handle for handle, _ in nodes)
        self.recent: deque[bytes] = deque(maxlen=_RECENT)


class Framing:
    """For one adapter. Handles are those of `OpcuaConfig.nodes`, from 1. Raises ValueError for node ids that do not fit
    a frame."""

    def __init__(self, config: OpcuaConfig, channel: str) -> None:
        self._channel = channel
        self._stamps = BY_SOURCE if config.time == "source" else BY_SERVER
        nodes: dict[str, list[tuple[int, str]]] = {}
        for handle, (device, _, source) in enumerate(config.nodes(), 1):
            nodes.setdefault(device, []).append((handle, source.node))
        self._devices = {name: _Device(config.credential(name), found) for name, found in nodes.items()}
        self._by_credential = {device.credential: device for device in self._devices.values()}
        self._by_handle = {handle: device for device in self._devices.values() for handle in device.handles}
        self._newest: dict[int, int] = {}
        self._latest = 0
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def handles(self, device: str) -> tuple[int, ...]:
        """The client handles of a device's nodes, in the configuration's order."""
        return self._devices[device].handles

    def reach_ms(self, handle: int) -> int:
        """UTC ms of the newest value of a node that is on disk; 0 before the first."""
        return milliseconds(self._newest.get(handle, 0))

    def frames(self, changes: Changes, received_at: int) -> Framed:
        """The frames of one notification."""
        body, start, end, count = changes
        channel = self._channel
        shape = self._shapes.get((count, end - start))
        times = shape.times(body, start, self._latest) if shape is not None else None
        if shape is not None and times is not None:
            frames = [
                Frame(
                    PROTOCOL, device.credential, device.head + body[start + first : start + last], received_at, channel
                )
                for device, first, last in shape.slices
            ]
            return Framed(frames, shape.handles, times, True)
        try:
            items = scan(changes, self._stamps)
        except Malformed:
            return Framed([self._unreadable(body[start:end], received_at)], (), ())
        frames = []
        by_device: dict[str, list[tuple[int, int, int, int]]] = {}
        for item in items:
            device = self._by_handle.get(item[0])
            if device is None:
                frames.append(self._unreadable(body[item[1] : item[2]], received_at))
            elif (why := _unusable(body, item[1], item[2])) is not None:
                if why & STATUS_MASK == NOTHING_YET:
                    continue
                # alone, so that it is a dead letter with its reason
                frames.append(self._frame(device, device.head, body[item[1] : item[2]], received_at))
            else:
                by_device.setdefault(device.credential, []).append(item)
        self._learn(changes, items)
        for credential, found in by_device.items():
            frames += self._of_device(self._by_credential[credential], body, found, received_at)
        return Framed(frames, [item[0] for item in items], [item[3] for item in items])

    def history(
        self, device: str, items: Sequence[tuple[int, bytes]], received_at: int, *, after_outage: bool = False
    ) -> Framed:
        """Frames of a device's history; `items` are (UTC ms, whole item), none of them told before `after_outage`:
        then those of instants that others of the device's variables have told go to the next millisecond."""
        found = self._devices[device]
        reach = max([self.reach_ms(handle) for handle in found.handles]) if after_outage else 0
        groups = {0: [item for item in items if item[0] > reach], 1: [item for item in items if item[0] <= reach]}
        frames = []
        for shift, group in groups.items():
            start = head(found.table, HISTORY, shift)
            parts = _parts(group, min(FRAME_BYTES - len(start), HISTORY_BYTES)) if group else ()
            frames += [self._frame(found, start, part, received_at) for part in parts]
        handles = [_HANDLE.unpack_from(item)[0] for _, item in items]
        return Framed(frames, handles, [ticks(instant) for instant, _ in items])

    def forget(self) -> None:
        """What was told may not be on disk: everything that comes is new."""
        self._newest.clear()
        self._latest = 0
        for device in self._devices.values():
            device.recent.clear()

    @property
    def newest(self) -> dict[int, int]:
        """Handle → time (ticks) of its newest value."""
        return self._newest

    def resume(self, newest: Mapping[int, int]) -> None:
        """What an earlier process had put on disk."""
        self._newest.update({handle: stamp for handle, stamp in newest.items() if handle in self._by_handle})
        self._latest = max(self._newest.values(), default=0)

    def disown(self, credential: str, now_ms: int) -> None:
        """The gateway has refused a time of this device that lies ahead: nothing after now is known of it, or the
        history of an outage would be asked for from that time on."""
        now = ticks(now_ms)
        for handle in self._by_credential[credential].handles:
            if self._newest.get(handle, 0) > now:
                self._newest[handle] = now
        self._latest = max(self._newest.values(), default=0)

    def apart(self, frame: Frame) -> list[Frame]:
        """The same, a frame for each instant; none for a frame of one instant."""
        payload = frame.payload
        offset = start = open_frame(payload).start
        found: dict[int, list[bytes]] = {}
        while offset < len(payload):
            item, after = item_at(payload, offset, len(payload))
            found.setdefault(_instant(item, self._stamps), []).append(payload[offset:after])
            offset = after
        parts = [payload[:start] + b"".join(items) for _, items in sorted(found.items())]
        return [frame._replace(payload=part) for part in parts] if len(parts) > 1 else []

    def told(self, framed: Framed) -> None:
        """These frames go to the disk: what they say is known from now on."""
        newest = self._newest
        if framed.newer:
            newest.update(zip(framed.handles, framed.times, strict=True))
        else:
            for handle, stamp in zip(framed.handles, framed.times, strict=True):
                if stamp > newest.get(handle, 0):
                    newest[handle] = stamp
        self._latest = max(self._latest, max(framed.times, default=0))
        devices = self._by_credential
        for frame in framed.frames:
            device = devices.get(frame.credential)
            if device is not None:
                device.recent.append(frame.payload)

    def _of_device(
        self, device: _Device, body: bytes, items: Sequence[tuple[int, int, int, int]], received_at: int
    ) -> Iterator[Frame]:
        groups: dict[int, list[tuple[int, bytes]]] = {}
        if all(stamp > self._latest for _, _, _, stamp in items):
            groups[0] = [(milliseconds(stamp), body[start:end]) for _, start, end, stamp in items]
        else:
            told = _told(device, self._stamps)
            for handle, start, end, stamp in items:
                exact = body[start:end]
                instant = milliseconds(stamp)
                newest = self._newest.get(handle, 0)
                if stamp and stamp <= newest:
                    known = told.get(instant, {}).get(handle, exact if stamp == newest else None)
                    if known == exact:
                        continue
                groups.setdefault(_free(instant, told), []).append((instant, exact))
        for shift, found in sorted(groups.items()):
            if shift:  # what comes for those instants must move on as well
                taken = max(instant for instant, _ in found) + shift
                self._latest = max(self._latest, ticks(taken + 1) - 1)
            start_of = device.head if not shift else head(device.table, CHANGES, shift)
            for part in _parts(found, FRAME_BYTES - len(start_of)):
                yield self._frame(device, start_of, part, received_at)

    def _frame(self, device: _Device, start: bytes, items: bytes, received_at: int) -> Frame:
        return Frame(PROTOCOL, device.credential, start + items, received_at, self._channel)

    def _unreadable(self, data: bytes, received_at: int) -> Frame:
        """What belongs to nobody goes to the dead letters, in the part that a frame can hold."""
        return Frame(PROTOCOL, "", head(b"") + data[:FRAME_BYTES], received_at, self._channel)

    def _learn(self, changes: Changes, items: Sequence[tuple[int, int, int, int]]) -> None:
        """Remember the form of a notification in which each device's items stand together: the next one may have it."""
        body, start, end, count = changes
        slices: list[tuple[_Device, int, int]] = []
        codes = []
        keys: list[int] = []
        with_status = 0
        for handle, first, last, stamp in items:
            key = HEAD.unpack_from(body, first)[1] if last - first > HEAD.size else 0
            device = self._by_handle.get(handle)
            size, place = self._stamps.get(key, (0, 0))
            if device is None or not place or not stamp or _unusable(body, first, last) is not None:
                return
            keys.append(key)
            status = STATUS_AT[key]
            if status:
                codes.append(f"IH{status - HEAD.size}xI{place - status - 4}xq{size - place - 8}x")
            else:
                codes.append(f"IH{place - HEAD.size}xq{size - place - 8}x")
            with_status += bool(status)
            if slices and slices[-1][0] is device:
                slices[-1] = (device, slices[-1][1], last - start)
            else:
                slices.append((device, first - start, last - start))
        if len({device.credential for device, _, _ in slices}) != len(slices) or not items:
            return
        if with_status not in (0, len(keys)):
            return
        if any(last - first + len(device.head) > FRAME_BYTES for device, first, last in slices):
            return
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        handles = tuple([handle for handle, _, _, _ in items])
        fields = struct.Struct("<" + "".join(codes))
        self._shapes[count, end - start] = _Shape(fields, handles, tuple(keys), bool(with_status), slices)


class _Shape(NamedTuple):
    """What a notification of one length looked like: how to read handles, keys and times at once, and the devices'
    slices, counted from the first item."""

    fields: struct.Struct
    handles: tuple[int, ...]
    keys: tuple[int, ...]
    status: bool
    slices: list[tuple[_Device, int, int]]

    def times(self, body: bytes, start: int, latest: int) -> Sequence[int] | None:
        """The items' times; None when the form is another, or a time is not later than `latest`."""
        try:
            values = self.fields.unpack_from(body, start)
        except struct.error:
            return None
        step = 3 + self.status
        stamps = values[step - 1 :: step]
        if values[0::step] != self.handles or values[1::step] != self.keys or min(stamps) <= latest:
            return None
        if self.status and any(values[2::step]):
            return None
        times: Sequence[int] = stamps
        return times


def _unusable(body: bytes, start: int, end: int) -> int | None:
    """The StatusCode of an item that holds no number, or one that the server itself calls Bad; None for others."""
    item, _ = item_at(body, start, end)
    return item.status if item.value is None or item.status & BAD else None


def _told(device: _Device, stamps: object) -> dict[int, dict[int, bytes]]:
    """Instant (ms) → handle → item, of the device's newest frames."""
    told: dict[int, dict[int, bytes]] = {}
    for payload in device.recent:
        envelope = open_frame(payload)
        offset = envelope.start
        while offset < len(payload):
            item, after = item_at(payload, offset, len(payload))
            instant = _instant(item, stamps) + envelope.shift_ms
            told.setdefault(instant, {})[item.handle] = payload[offset:after]
            offset = after
    return told


def _instant(item: Item, stamps: object) -> int:
    """UTC ms of the time that counts; 0 without one."""
    first, second = item.source_time, item.server_time
    if stamps is BY_SERVER:
        first, second = second, first
    return milliseconds(first) or milliseconds(second)


def _free(instant: int, told: dict[int, dict[int, bytes]]) -> int:
    """By how many ms a change must be moved to an instant that was not told yet."""
    shift = 0
    while instant + shift in told and shift < _SHIFTS:
        shift += 1
    return shift


def _parts(items: Sequence[tuple[int, bytes]], most: int) -> Iterator[bytes]:
    """The items of (instant, bytes) joined, each part at most `most` bytes long, but never less than one instant."""
    if sum([len(item) for _, item in items]) <= most:
        yield b"".join([item for _, item in items])
        return
    part: list[bytes] = []
    size = 0
    for _, group in groupby(sorted(items, key=itemgetter(0)), key=itemgetter(0)):
        unit = b"".join([item for _, item in group])
        if part and size + len(unit) > most:
            yield b"".join(part)
            part, size = [], 0
        part.append(unit)
        size += len(unit)
    yield b"".join(part)
