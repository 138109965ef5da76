"""What goes wrong with a network, and whether another try can help."""


class NetworkError(Exception):
    """The network cannot be brought to what was asked; the message says what is wrong, where, and what to do."""


class SpecError(NetworkError, ValueError):
    """The description contradicts itself or what stands in the folder; one line per field."""


class BuildError(NetworkError):
    """Fabric's programs cannot be built here."""


class CommandFailed(NetworkError):
    """One of Fabric's programs ended with an error; `output` is what it said."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output
