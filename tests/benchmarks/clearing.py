"""Prints the clearing benchmarks: `python tests/benchmarks/clearing.py`."""

import json

from flexrelay.bench import clearing

if __name__ == "__main__":
    for result in clearing.run():
        print(json.dumps(result))
