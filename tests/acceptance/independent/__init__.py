"""An auditor of a demo's data folder that shares no code with the product: no decoder, no rule, no hash, no key.

It reads the files as their formats are documented (blocks, journal segments, vault) and recomputes what the story's
energy and money must be, with fractions where the product uses floored integers. Standard library and `cryptography`.
"""
