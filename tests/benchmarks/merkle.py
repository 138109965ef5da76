"""Prints the Merkle benchmarks: `python tests/benchmarks/merkle.py`."""

import json

from flexrelay.bench import merkle

if __name__ == "__main__":
    for result in merkle.run():
        print(json.dumps(result))
