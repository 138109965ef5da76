"""The vocabulary of flexrelay: quantities, times, identities, readings, intents and market terms.

Everything here is a value: no I/O, no clock, no randomness. All other packages may import this one; it imports
none of them. Sign convention everywhere: positive = withdrawal from the grid (UFTP's convention).
"""
