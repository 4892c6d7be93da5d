"""`fleet sbp`: verify the QR links of SBP. Nothing is opened, sent or paid."""

from typing import Annotated

import typer

from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json
from schemas.codes.nspk_link import LinkError, verify_link

app = typer.Typer(help="SBP: verify QR links.", no_args_is_help=True)

_MISMATCH = "link_checksum_mismatch"


@app.callback()
def _group() -> None:
    """Keep `verify-link` a word of its own: a group with one command would swallow its name."""


@app.command("verify-link")
def verify(
    url: Annotated[str, typer.Argument(help="The link that the code holds, such as https://qr.nspk.ru/…")],
    as_json: JsonFlag = False,
) -> None:
    """Show what a link says, its checksum proven. Exit 1 where the checksum is wrong, 2 where it is no SBP link."""
    try:
        link = verify_link(url)
    except LinkError as error:
        failed = error.code == _MISMATCH
        exit_code = ExitCode.CHECK_FAILED if failed else ExitCode.WRONG_INPUT
        if as_json and failed:
            print_json({"valid": False, "crc_valid": False, "code": error.code})
        raise CommandError(error.code, str(error), exit_code) from error
    # The short form carries no checksum: nothing was proven, and nothing is wrong.
    fields = {"valid": True, "crc_valid": None if link.crc is None else True, **link.fields()}
    if as_json:
        print_json(fields)
    else:
        print_fields("link", fields)
