"""What the ledger's events tell, in tables: kept block by block with their position, rebuilt from zero at will."""

from flexrelay.projections.catalogue import PROJECTORS
from flexrelay.projections.news import News
from flexrelay.projections.projections import Listener, Projections
from flexrelay.projections.projector import Event, Handler, ProjectionFailed, Projector, Scope
from flexrelay.projections.revocation import Gate, Revocation
from flexrelay.projections.schema import PROJECTIONS
from flexrelay.projections.views import Document, Identity, Posting, Views

__all__ = [
    "PROJECTIONS",
    "PROJECTORS",
    "Document",
    "Event",
    "Gate",
    "Handler",
    "Identity",
    "Listener",
    "News",
    "Posting",
    "ProjectionFailed",
    "Projections",
    "Projector",
    "Revocation",
    "Scope",
    "Views",
]
