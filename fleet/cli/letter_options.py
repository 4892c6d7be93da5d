"""The options that narrow dead letters: alike for those that list them and those that act on them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from fleet.cli.moments import moment
from schemas.operations import OperationType

Rail = Annotated[str | None, typer.Option(help="Only this rail.")]
Class = Annotated[str | None, typer.Option("--class", help="Only this class of error.")]
Fingerprint = Annotated[str | None, typer.Option(help="Only letters with this fingerprint.")]
Operation = Annotated[OperationType | None, typer.Option(help="Only this operation, such as PAYOUT.")]
Provider = Annotated[str | None, typer.Option(help="Only this provider.")]
Tenant = Annotated[UUID | None, typer.Option(help="Only this tenant's; for keys of the system's tenant.")]
Intent = Annotated[UUID | None, typer.Option(help="Only this payment's.")]
Job = Annotated[UUID | None, typer.Option(help="Only this job's.")]
Trace = Annotated[str | None, typer.Option(help="Only of this trace: its 32 digits.")]
Evidence = Annotated[UUID | None, typer.Option(help="Only of the job that this evidence is about.")]
Permits = Annotated[int | None, typer.Option(help="Only with so many permits when it died; 0: never sent.")]
Text = Annotated[
    str | None, typer.Option(help="Words of the message, the class, the provider's reference or the masked payload.")
]
After = Annotated[datetime | None, typer.Option(parser=moment, help="Received at or after this time, UTC.")]
Before = Annotated[datetime | None, typer.Option(parser=moment, help="Received before this time, UTC.")]
