"""`flexrelay device onboard`: many devices from a table."""

import time
from pathlib import Path
from typing import Annotated

import typer

from flexrelay.app import Level, Site
from flexrelay.cli.folder import Folder, bar, on_site
from flexrelay.cli.output import BAD_INPUT, CHECK_FAILED, Json, err, out, show, table
from flexrelay.commissioning.onboarding import (
    COLUMNS,
    GROUP,
    Ended,
    OnboardingPlan,
    OnboardingReport,
    Source,
    Step,
    check_place,
    onboard,
    plan_onboarding,
)

_SHOWN = 50
_SAY_S = 10.0
"""Between two lines of progress where no bar can be drawn."""


def onboard_(
    folder: Folder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=f"CSV or JSON lines: {', '.join(COLUMNS)}.")],
    org: Annotated[str, typer.Option(help="For rows without one.")] = "",
    controller: Annotated[str, typer.Option(metavar="LABEL", help="For rows without one.")] = "",
    operations: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Create operations that devices with claim codes signed.")
    ] = None,
    lwm2m_uri: Annotated[str, typer.Option(metavar="URI", help="Where bootstrapped LwM2M devices register.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and tell; do nothing.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What was done, or is wrong, one entry a device: .csv or .json.")
    ] = None,
    group: Annotated[int, typer.Option(min=1, max=2000, help="Devices under way at once.")] = GROUP,
    json_: Json = False,
) -> None:
    """Register and enrol many devices; again goes on where it was interrupted, and does nothing twice."""
    source = Source(file, org, controller, operations, lwm2m_uri)

    async def work(site: Site) -> tuple[OnboardingPlan, OnboardingReport | None]:
        if report is not None:
            check_place(report)
        plan = await plan_onboarding(site, source)
        if dry_run or plan.problems:
            if report is not None:
                plan.write(report)
            return plan, None
        with bar() as shown:
            task = shown.add_task("onboarding", total=len(plan.wanted))
            next_line = time.monotonic() + _SAY_S

            def tell(done: int, failed: int, total: int) -> None:
                nonlocal next_line
                text = f"onboarding {done:,} of {total:,}, {failed:,} failed"
                shown.update(task, completed=done, description=text)
                if not err.is_terminal and time.monotonic() >= next_line:
                    err.print(text, markup=False)
                    next_line = time.monotonic() + _SAY_S

            done = await onboard(site, plan, group=group, progress=tell)
        if report is not None:
            done.write(report)
        return plan, done

    plan, done = on_site(folder, Level.READING if dry_run else Level.ACTING, json_, work)
    if done is None:
        show(plan.to_json(), json_, lambda: _planned(plan))
        if plan.problems:
            told = f"; each in {report}" if report is not None else ""
            err.print(
                f"flexrelay: {len(plan.problems):,} problems; nothing was done{told}", style="bold red", markup=False
            )
            raise typer.Exit(BAD_INPUT)
        return
    show(done.to_json(), json_, lambda: _told(done, report))
    if done.count(Ended.FAILED):
        raise typer.Exit(CHECK_FAILED)


def _planned(plan: OnboardingPlan) -> None:
    for problem in plan.problems[:_SHOWN]:
        out.print(str(problem), markup=False, soft_wrap=True)
    if len(plan.problems) > _SHOWN:
        out.print(f"… and {len(plan.problems) - _SHOWN:,} more; --json has all of them")
    for note in plan.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    rows = [
        (w.line, w.org, w.name, w.kind, " ".join(w.receivers), w.step.value, ", ".join(w.makes())) for w in plan.wanted
    ]
    table("what would be done", ("line", "org", "name", "kind", "receivers", "step", "makes"), rows[:_SHOWN])
    counts = ", ".join(f"{plan.count(step):,} {step.value}" for step in Step)
    out.print(f"{len(plan.wanted):,} devices without a problem: {counts}", markup=False)


def _told(done: OnboardingReport, report: Path | None) -> None:
    failed = [device for device in done.devices if device.ended is Ended.FAILED]
    for device in failed[:_SHOWN]:
        out.print(f"line {device.line}, {device.name}: {device.reason}", markup=False, soft_wrap=True)
    for note in done.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    counts = ", ".join(f"{done.count(ended):,} {ended.value}" for ended in Ended)
    out.print(f"{counts}; {done.per_second:,} a second", markup=False)
    folders = sorted({str(Path(path).parent) for device in done.devices for path in device.secrets})
    if folders:
        out.print(
            f"secrets are in {', '.join(folders)}: move each device's to the device", markup=False, soft_wrap=True
        )
    if report is not None:
        out.print(f"each device: {report}", markup=False, soft_wrap=True)
