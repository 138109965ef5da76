"""Which credential an adapter knows an enrolled device by."""

from collections.abc import Sequence

from flexrelay.devices.enrolments import DeviceRecord
from flexrelay_schemas.did import split_did
from flexrelay_sdk import Adapter


def channels(adapter: Adapter, credential: str) -> Sequence[str]:
    """Where a device with this credential sends its readings; none where the protocol has no such credentials."""
    try:
        return adapter.channels_for(credential)
    except ValueError:
        return ()


def credentials_at(adapter: Adapter, record: DeviceRecord) -> tuple[str, ...]:
    """The device's credentials that the adapter has a place for; a device bound to nothing there goes by its scid."""
    bound = [credential for protocol, credential in record.credentials if protocol == adapter.protocol]
    named = bound or [split_did(record.did)[1]]
    return tuple(credential for credential in named if channels(adapter, credential))
