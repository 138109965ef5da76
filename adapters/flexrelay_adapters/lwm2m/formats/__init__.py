"""LwM2M content formats: bytes ↔ records of a path, a value and a time. One file a format, all pure."""

from flexrelay_adapters.lwm2m.formats.record import FormatError, Path, Record, Value, parse_path, path_text
from flexrelay_adapters.lwm2m.formats.select import FORMATS, decode, encode

__all__ = ["FORMATS", "FormatError", "Path", "Record", "Value", "decode", "encode", "parse_path", "path_text"]
