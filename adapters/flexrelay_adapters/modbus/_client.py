"""One Modbus TCP connection on pymodbus: one request under way; an answer belongs to it or ends the connection.

pymodbus takes answers with transaction id 0, and of another length or function than was asked for; here every answer
must have the request's transaction id, unit, function and length. After a missing answer the connection is closed, so
that a late one cannot be taken for the next one's.
"""

import asyncio
import logging
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Self

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from flexrelay_adapters.modbus.refusals import ConnectionLost, Refused
from flexrelay_adapters.modbus.values import Span

_MBAP: Final = struct.Struct(">HHHB")
_MAX_PDU: Final = 254
"""Bytes after the unit: MBAP's length counts it too."""


class Link:
    """Use `open`; `close` is idempotent. `read` and `write` wait for each other in the order of the calls."""

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        host, _, port = endpoint.rpartition(":")
        self.endpoint = endpoint
        self.requests = 0
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._expected = (0, 0)
        """(Transaction id, unit) of the request under way."""
        self._open = False
        self._why = ""
        library = logging.getLogger("pymodbus")
        if library.level == logging.NOTSET:  # it logs every fault with all the bytes of the last packets
            library.setLevel(logging.CRITICAL)
        self._client = AsyncModbusTcpClient(
            host.strip("[]"),
            port=int(port),
            timeout=timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._watch,
            trace_connect=self._told,
        )

    @classmethod
    async def open(cls, endpoint: str, timeout_s: float) -> Self:
        """Raises ConnectionLost."""
        link = cls(endpoint, timeout_s)
        try:
            connected = await link._client.connect()
        except BaseException:
            link.close()
            raise
        if not connected:
            link.close()
            raise ConnectionLost(f"cannot reach {endpoint}: is the device on, is `endpoint` right?")
        return link

    @property
    def alive(self) -> bool:
        return self._open

    def close(self) -> None:
        self._open = False
        self._client.close()

    async def read(self, unit: int, span: Span) -> bytes:
        """The registers' bytes as they stand in the answer. Raises Refused, ConnectionLost."""
        client = self._client
        ask = client.read_holding_registers if span.table == "holding" else client.read_input_registers
        function = 3 if span.table == "holding" else 4
        async with self._turn:
            answer = await self._exchange(lambda: ask(span.address, count=span.size, device_id=unit), function)
            registers = answer.registers
            if len(registers) != span.size:
                raise self._lost(f"{len(registers)} registers instead of {span.size}")
        return struct.pack(f">{span.size}H", *registers)

    async def write(self, unit: int, address: int, registers: Sequence[int]) -> None:
        """Function 16. Raises Refused, ConnectionLost."""
        async with self._turn:
            answer = await self._exchange(
                lambda: self._client.write_registers(address, list(registers), device_id=unit), 16
            )
            if (answer.address, answer.count) != (address, len(registers)):
                raise self._lost("the answer to a write names other registers")

    async def _exchange(self, ask: Any, function: int) -> ModbusPDU:
        if not self._open:
            raise ConnectionLost(f"{self.endpoint}: {self._why or 'the connection is closed'}")
        self.requests += 1
        try:
            answer: ModbusPDU = await ask()
        except ModbusException as error:
            raise self._lost(self._why or f"no answer within {self._timeout_s:g} s ({error.string})") from None
        except BaseException:
            self.close()  # an answer may still come
            raise
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # Python 3.11's wait_for, in pymodbus, can lose a cancellation
        if answer.isError():
            if answer.function_code & 0x7F != function:
                raise self._lost("an answer with another function than was asked for")
            raise Refused(answer.exception_code)
        if answer.function_code != function:
            raise self._lost("an answer with another function than was asked for")
        return answer

    def _lost(self, why: str) -> ConnectionLost:
        self._why = self._why or why
        self.close()
        return ConnectionLost(f"{self.endpoint}: {why}")

    def _told(self, connected: bool) -> None:
        if connected:
            self._open = True
        else:
            self._open = False
            self._fail("the device has closed the connection")

    def _watch(self, sending: bool, data: bytes) -> bytes:
        """Sees every packet: what goes out, and all that has come in since."""
        if sending:
            self._expected = (data[0] << 8 | data[1], data[6])
        elif len(data) >= _MBAP.size:
            transaction, protocol, length, unit = _MBAP.unpack_from(data)
            if protocol or not 3 <= length <= _MAX_PDU:
                self._fail("what comes is not Modbus")
                return b""
            if (transaction, unit) != self._expected:
                self._fail(f"an answer to another request (transaction {transaction}, unit {unit})")
                return b""
            if len(data) > 6 + length:
                self._fail("more comes than was asked for")
                return b""
        return data

    def _fail(self, why: str) -> None:
        """End the exchange under way at once, not after its timeout."""
        self._why = self._why or why
        self._open = False
        waiting = getattr(self._client.ctx, "response_future", None)
        if isinstance(waiting, asyncio.Future) and not waiting.done():
            with suppress(asyncio.InvalidStateError):
                waiting.set_exception(ModbusException(why))
                waiting.exception()  # whether somebody waits or not
        asyncio.get_running_loop().call_soon(self.close)
