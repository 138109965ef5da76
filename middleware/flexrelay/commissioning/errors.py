"""What a person asked for cannot be done; nothing was changed by the step that says so."""


class CommissioningError(ValueError):
    """The message names what is wrong, where, and what to do."""
