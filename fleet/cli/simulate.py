"""`fleet simulate PROVIDER …`: tell the simulated providers of a running stack what shall happen."""

from typing import Annotated, Any, Final

import httpx
import orjson
import typer

from adapters.testkit.faults import MEANS, Fault
from fleet.cli.connection import provider_url
from fleet.cli.output import CommandError, ExitCode, print_json, print_table
from fleet.cli.practise import give_up
from fleet.stack.bank import OWN_ACCOUNT_ID
from fleet.stack.rails import RAILS, SIMULATED

app = typer.Typer(help="Simulated providers: script faults, play the payer, read their books.", no_args_is_help=True)

_CONTROLS: Final = {"bank": "/_mock"}
"""Where a provider that is not ours is controlled."""

Url = Annotated[str, typer.Option(help="Where the simulator answers; default: the stack's.")]


def commands(rail: str) -> typer.Typer:
    """Return the commands of one rail's simulator."""
    group = typer.Typer(help=f"The provider of {rail} ({RAILS[rail].provider}).", no_args_is_help=True)

    @group.command()
    def fault(
        name: Annotated[Fault | None, typer.Argument(help="What goes wrong; left out, all that can is shown.")] = None,
        payee: Annotated[str | None, typer.Option(help="Only of this payee, as the provider is told it.")] = None,
        reference: Annotated[str | None, typer.Option(help="Only of this reference of ours.")] = None,
        amount_minor: Annotated[int | None, typer.Option(help="Only of this amount, in minor units.")] = None,
        probability: Annotated[float, typer.Option(min=0, max=1, help="Drawn from the simulator's seed.")] = 1,
        times: Annotated[int | None, typer.Option(min=1, help="How often in all; without end where left out.")] = None,
        url: Url = "",
    ) -> None:
        """Add a fault in front of the others, and show those in force; without a name, show what can go wrong."""
        if name is None:
            print_table(f"faults of {rail}", ("fault", "what happens"), [(each, MEANS[each]) for each in Fault])
            return
        rule = {"payee": payee, "reference": reference, "amount_minor": amount_minor, "times": times}
        given = {key: value for key, value in rule.items() if value is not None}
        _show(rail, url, "POST", "faults", {"fault": name, "probability": probability, **given})

    @group.command()
    def faults(
        clear: Annotated[bool, typer.Option("--clear", help="Forget what was added.")] = False, url: Url = ""
    ) -> None:
        """Show the faults in force."""
        _show(rail, url, "DELETE" if clear else "GET", "faults")

    @group.command()
    def book(url: Url = "") -> None:
        """Show the provider's own book."""
        _show(rail, url, "GET", "book")

    @group.command()
    def control(
        path: Annotated[str, typer.Argument(help="What is controlled, such as orders/CODE/pay.")],
        send: Annotated[str, typer.Option(help="The JSON body.")] = "{}",
        method: Annotated[str, typer.Option(help="GET, POST, PUT or DELETE.")] = "POST",
        url: Url = "",
    ) -> None:
        """Send one call of the simulator's control API, as docs/rails lists them."""
        _show(rail, url, method.upper(), path, _json(send))

    return group


def bank_commands() -> typer.Typer:
    """Return the commands of the bank's counterpart, mock-bank: its accounts behave as they are told."""
    group = typer.Typer(help="The bank (mock-bank).", no_args_is_help=True)

    @group.command()
    def fault(
        name: Annotated[str, typer.Argument(help="A behaviour of mock-bank's, such as silent or return-later.")],
        payee: Annotated[str, typer.Option(help="Of this account, an IBAN; left out, of our own.")] = "",
        reference: Annotated[str | None, typer.Option(help="Only of this reference of ours.")] = None,
        amount_minor: Annotated[int | None, typer.Option(help="Only of this amount, in minor units.")] = None,
        probability: Annotated[float | None, typer.Option(min=0, max=1, help="Drawn from the bank's seed.")] = None,
        times: Annotated[int | None, typer.Option(min=1, help="How often in all; without end where left out.")] = None,
        url: Url = "",
    ) -> None:
        """Let an account behave so; with an amount, a reference, a probability or times: the payments they are true of.

        An account keeps its behaviour until it is told otherwise, a script until it is cleared or the bank ends.
        """
        rule = {"reference": reference, "amount_minor": amount_minor, "probability": probability, "times": times}
        given = {key: value for key, value in rule.items() if value is not None}
        if given:
            _show("bank", url, "POST", "faults", {"fault": name, **given, **({"payee": payee} if payee else {})})
            return
        if not payee:
            _show("bank", url, "PATCH", f"accounts/{OWN_ACCOUNT_ID}", {"behaviour": name})
            return
        known = [each["id"] for each in _ask("bank", url, "GET", "accounts") if each["iban"] == payee]
        if known:
            _show("bank", url, "PATCH", f"accounts/{known[0]}", {"behaviour": name})
        else:
            made = {"id": payee, "name": "scripted", "iban": payee, "currency": "THB", "behaviour": name}
            _show("bank", url, "POST", "accounts", made)

    @group.command()
    def faults(
        clear: Annotated[bool, typer.Option("--clear", help="Let every account accept, without scripts.")] = False,
        url: Url = "",
    ) -> None:
        """Show the accounts, how they behave, and the scripts in force."""
        scripts = _ask("bank", url, "DELETE" if clear else "GET", "faults")
        for account in _ask("bank", url, "GET", "accounts") if clear else ():
            _ask("bank", url, "PATCH", f"accounts/{account['id']}", {"behaviour": "accept"})
        print_json({"accounts": _ask("bank", url, "GET", "accounts"), **scripts})

    @group.command()
    def book(url: Url = "") -> None:
        """Show the bank's own book of payments."""
        _show("bank", url, "GET", "payments")

    @group.command()
    def control(
        path: Annotated[str, typer.Argument(help="What is controlled, such as advance?days=1 or credits.")],
        send: Annotated[str, typer.Option(help="The JSON body.")] = "{}",
        method: Annotated[str, typer.Option(help="GET, POST, PUT or PATCH.")] = "POST",
        url: Url = "",
    ) -> None:
        """Send one call of mock-bank's control API."""
        _show("bank", url, method.upper(), path, _json(send))

    return group


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CommandError("malformed_json", f"--send is not JSON: {error}") from error


def _show(rail: str, url: str, method: str, path: str, body: Any = None) -> None:
    print_json(_ask(rail, url, method, path, body))


def _ask(rail: str, url: str, method: str, path: str, body: Any = None) -> Any:
    address = url or provider_url(rail)
    try:
        with httpx.Client(base_url=address, timeout=10, trust_env=False) as http:
            answer = http.request(method, f"{_CONTROLS.get(rail, '/_control')}/{path.lstrip('/')}", json=body)
            # A path that is none is refused in plain text.
            told = orjson.loads(answer.content) if answer.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError) as error:
        text = f"the simulator of {rail} at {address} gave no usable answer ({type(error).__name__}): does it run?"
        raise CommandError("simulator_unreachable", text, ExitCode.UNREACHABLE) from error
    if not answer.is_success:
        raise CommandError("simulator_refused", f"{answer.status_code} {answer.text[:300]}", ExitCode.REFUSED)
    return told


for _rail in SIMULATED:
    app.add_typer(commands(_rail), name=_rail)
app.add_typer(bank_commands(), name="bank")
app.command("give-up")(give_up)
