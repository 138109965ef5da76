"""Expecting refusals by their code."""

import pytest

from flexrelay_contracts.refusal import Refused


def refused(code: str, field: str | None = None) -> pytest.RaisesExc[Refused]:
    """Expects a refusal with this code (and offending field, when it is named)."""

    def is_it(error: Refused) -> bool:
        return error.code == code and field in (None, error.field)

    return pytest.RaisesExc(Refused, check=is_it)
