"""`python -m flexrelay_sdk.skeleton NAME [FOLDER]`."""

import sys
from pathlib import Path

from flexrelay_sdk.skeleton import NEXT, generate


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        made = generate(arguments[0], Path(arguments[1]) if len(arguments) == 2 else None)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{made}: {NEXT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
