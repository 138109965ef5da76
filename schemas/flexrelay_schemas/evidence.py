"""Evidence: how a reading's bytes are tied to a root on the ledger, in two segments.

Leaf of a window tree: SHA-256(0x00 ‖ salt16 ‖ evidence bytes). Root of a window tree → window descriptor → leaf of an
anchor tree: SHA-256(0x00 ‖ canonical descriptor). Inner nodes: SHA-256(0x01 ‖ left ‖ right), the tree's shape is
RFC 6962's (split at the largest power of two below the size). Hashes are lower-case hex in documents.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import Did, Hash
from flexrelay_schemas.intervals import IspIndex, LocalDate
from flexrelay_schemas.model import Items, Model

AnchorId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Base64Url = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]*$", max_length=200_000)]
Index = Annotated[int, Field(ge=0, le=2**40)]


class Window(Model):
    """All readings of one device in one market interval, as one holder knew them.

    Revision n + 1 names the root of revision n in `previous` (empty for revision 1): late and corrected readings make
    a new revision, nothing is rewritten.
    """

    v: Literal[1] = 1
    device: Did
    date: LocalDate
    isp: IspIndex
    revision: Annotated[int, Field(ge=1, le=10_000)]
    previous: Hash | Literal[""] = ""
    leaves: Annotated[int, Field(ge=1, le=1_000_000)]
    root: Hash

    def leaf_hash(self) -> bytes:
        """The window's leaf in the anchor tree."""
        return hashlib.sha256(b"\x00" + canonical(self.model_dump())).digest()


class Path(Model):
    """An audit path (RFC 6962 §2.1.1): leaf `index` of `size`, sibling hashes from the leaf to the root."""

    index: Index
    size: Annotated[int, Field(ge=1, le=2**40)]
    hashes: Items[Hash]


class InclusionProof(Model):
    """A reading's evidence bytes, their salt, and the two paths up to a root anchored by `org` as `anchor_id`."""

    v: Literal[1] = 1
    payload: Base64Url
    salt: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    in_window: Path
    window: Window
    in_anchor: Path
    org: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    anchor_id: AnchorId
