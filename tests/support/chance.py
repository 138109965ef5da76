"""The seed of a campaign: a new one each time, told, and the same again when FLEXRELAY_SEED names it."""

import os
import random


def told_seed() -> int:
    """A seed, printed so that a report of the run shows it."""
    seed = int(os.environ.get("FLEXRELAY_SEED") or random.SystemRandom().randrange(2**32))
    print(f"\nFLEXRELAY_SEED={seed}")
    return seed
