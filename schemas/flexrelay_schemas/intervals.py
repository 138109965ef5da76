"""Market intervals: imbalance settlement periods (ISPs) on local dates, and the calendar that gives them instants.

The calendar is published on the ledger, date by date, so that no contract needs time-zone data: a day is its UTC
start and its number of ISPs (92, 96 or 100 of 15 minutes where daylight saving changes).
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from flexrelay_schemas.intent import WallMs
from flexrelay_schemas.model import Model

LocalDate = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]
"""YYYY-MM-DD in ASCII digits; whether the date is published is the calendar's matter."""
IspIndex = Annotated[int, Field(ge=1, le=1500)]


class CalendarDay(Model):
    """One local date of the market: `start` in UTC ms, `isps` intervals of `isp_seconds` each."""

    date: LocalDate
    start: WallMs
    isps: IspIndex
    isp_seconds: Annotated[int, Field(ge=4, le=86_400)]
    working: bool
    """False on Saturdays, Sundays and holidays: baselines from history count working days."""

    @property
    def end(self) -> int:
        """UTC ms at which the day ends."""
        return self.start + self.isps * self.isp_seconds * 1000

    def bounds(self, isp: int) -> tuple[int, int]:
        """[start, end) of ISP `isp` (from 1) in UTC ms. Raises ValueError outside the day."""
        if not 1 <= isp <= self.isps:
            raise ValueError(f"ISP {isp} is not in {self.date}, which has {self.isps}")
        start = self.start + (isp - 1) * self.isp_seconds * 1000
        return start, start + self.isp_seconds * 1000

    def isp_closed_by(self, instant: int) -> int:
        """The ISP to which a register reading at `instant` belongs: the one in (start, end]. Raises ValueError."""
        if not self.start < instant <= self.end:
            raise ValueError(f"instant {instant} is not in {self.date}")
        return -((self.start - instant) // (self.isp_seconds * 1000))  # ceiling of the elapsed intervals
