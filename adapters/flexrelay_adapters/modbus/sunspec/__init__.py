"""SunSpec on Modbus: the models' facts, which points become which registers, and finding out what a device has."""

from flexrelay_adapters.modbus.sunspec.models import MODELS_KNOWN, Point, point, points
from flexrelay_adapters.modbus.sunspec.reading import FLAGS, READINGS, Choice, spans_of
from flexrelay_adapters.modbus.sunspec.survey import BASES, NoSunSpec, Survey, survey, text_of

__all__ = [
    "BASES",
    "FLAGS",
    "MODELS_KNOWN",
    "READINGS",
    "Choice",
    "NoSunSpec",
    "Point",
    "Survey",
    "point",
    "points",
    "spans_of",
    "survey",
    "text_of",
]
