"""Onboarding of one device or ten thousand from a table: plan (everything checked, nothing done), then carry out.

plan = await plan_onboarding(site, Source(Path("devices.csv")))
report = await onboard(site, plan)
"""

from flexrelay.commissioning.onboarding.plan import Source, plan_onboarding
from flexrelay.commissioning.onboarding.problem import Problem
from flexrelay.commissioning.onboarding.report import DeviceReport, Ended, OnboardingReport, check_place
from flexrelay.commissioning.onboarding.run import GROUP, onboard
from flexrelay.commissioning.onboarding.table import COLUMNS
from flexrelay.commissioning.onboarding.wanted import OnboardingPlan, Step, Wanted

__all__ = [
    "COLUMNS",
    "GROUP",
    "DeviceReport",
    "Ended",
    "OnboardingPlan",
    "OnboardingReport",
    "Problem",
    "Source",
    "Step",
    "Wanted",
    "check_place",
    "onboard",
    "plan_onboarding",
]
