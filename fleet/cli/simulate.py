"""`fleet simulate PROVIDER …`: tell the simulated providers of a running stack what shall happen."""

from typing import Annotated, Any

import httpx
import orjson
import typer

from adapters.testkit.faults import Fault
from fleet.cli.connection import provider_url
from fleet.cli.output import CommandError, ExitCode, print_json
from fleet.stack.rails import RAILS, SIMULATED

app = typer.Typer(help="Simulated providers: script faults, play the payer, read their books.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Where the simulator answers; default: the stack's.")]


def commands(rail: str) -> typer.Typer:
    """Return the commands of one rail's simulator."""
    group = typer.Typer(help=f"The provider of {rail} ({RAILS[rail].provider}).", no_args_is_help=True)

    @group.command()
    def fault(
        name: Annotated[Fault, typer.Argument(help="What goes wrong; `before` and `after` mean the payment.")],
        payee: Annotated[str | None, typer.Option(help="Only of this payee, as the provider is told it.")] = None,
        reference: Annotated[str | None, typer.Option(help="Only of this reference of ours.")] = None,
        amount_minor: Annotated[int | None, typer.Option(help="Only of this amount, in minor units.")] = None,
        probability: Annotated[float, typer.Option(min=0, max=1, help="Drawn from the simulator's seed.")] = 1,
        times: Annotated[int | None, typer.Option(min=1, help="How often in all; without end where left out.")] = None,
        url: Url = "",
    ) -> None:
        """Add a fault in front of the others, and show them all."""
        rule = {"payee": payee, "reference": reference, "amount_minor": amount_minor, "times": times}
        given = {key: value for key, value in rule.items() if value is not None}
        _show(rail, url, "POST", "faults", {"fault": name, "probability": probability, **given})

    @group.command()
    def faults(clear: Annotated[bool, typer.Option("--clear", help="Forget them all.")] = False, url: Url = "") -> None:
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
        try:
            body = orjson.loads(send)
        except orjson.JSONDecodeError as error:
            raise CommandError("malformed_json", f"--send is not JSON: {error}") from error
        _show(rail, url, method.upper(), path, body)

    return group


def _show(rail: str, url: str, method: str, path: str, body: Any = None) -> None:
    address = url or provider_url(rail)
    try:
        with httpx.Client(base_url=address, timeout=10, trust_env=False) as http:
            answer = http.request(method, f"/_control/{path.lstrip('/')}", json=body)
            told = orjson.loads(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError) as error:
        text = f"the simulator of {rail} at {address} gave no usable answer ({type(error).__name__}): does it run?"
        raise CommandError("simulator_unreachable", text, ExitCode.UNREACHABLE) from error
    if not answer.is_success:
        raise CommandError("simulator_refused", f"{answer.status_code} {answer.text[:300]}", ExitCode.REFUSED)
    print_json(told)


for _rail in SIMULATED:
    app.add_typer(commands(_rail), name=_rail)
