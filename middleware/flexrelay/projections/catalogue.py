"""The projectors of a gateway. To add one: write its handlers in a module and name the module here."""

from collections.abc import Mapping, Sequence
from typing import Final

from flexrelay.projections.documents import DOCUMENTS
from flexrelay.projections.identities import GRANTS, IDENTITIES
from flexrelay.projections.money import MONEY
from flexrelay.projections.projector import Handler, Projector

PROJECTORS: Final[Sequence[Projector]] = (IDENTITIES, GRANTS, DOCUMENTS, MONEY)


def by_event(projectors: Sequence[Projector]) -> Mapping[str, tuple[Handler, ...]]:
    """Event name → its handlers, in the projectors' order."""
    names = sorted({name for projector in projectors for name in projector})
    return {name: tuple(projector[name] for projector in projectors if name in projector) for name in names}
