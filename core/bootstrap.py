"""Wires the core: the only place where services meet their stores. Nothing is opened before `open_core` runs."""

import base64
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

import asyncpg

from core.bus.receivers import DeadLettersReceiver, ResultsReceiver, read_result
from core.bus.roles import BusDeps
from core.bus.webhook_http import WebhookSender
from core.domain.context import Context
from core.domain.resolution import Pace
from core.domain.webhooks import Schedule
from core.services.access.identity import ClaimRules, Issuer, roles_of
from core.services.access.keys import Authenticator, KeyService
from core.services.access.nonces import NonceGate
from core.services.access.people import PeopleService
from core.services.access.tenants import TenantService
from core.services.ledger_port import Ledger
from core.services.money_in.provider_payments import tell_again
from core.services.on_call.purge import Purger, ages_of
from core.services.on_call.run_redrives import run_redrives_if_any
from core.services.payments.accept import AcceptService
from core.services.payments.read_intents import ReadService
from core.services.payments.reviews import expire_reviews
from core.services.recon.recon import reconcile_intents, reconcile_ledger_alone
from core.services.recon.registers import RegisterPace, compare_lately, want_registers
from core.services.recon.rounds import LATELY, Rounds
from core.services.settling.announced_returns import tell_unbooked
from core.services.settling.completer import Completer
from core.services.settling.doubted_ends import ask_about_ends
from core.services.settling.due import Act, Look, act_where_due, until_fewer
from core.services.settling.resolve import ResolverMemory, resolve_due
from core.services.settling.settle import UnitOfWorkFactory
from core.services.terms.fees import FeeBook
from core.services.terms.limits import LimitBook
from core.services.terms.quotas import Quotas
from core.services.told.events import EventHub, EventService
from core.services.told.events import Pace as StreamPace
from core.services.told.notify import Notifier, NotifyPace
from core.services.told.webhooks import WebhookService
from core.services.wallets.wallets import WalletService
from core.settings import Settings
from core.store.access.keys import KeyStore
from core.store.access.nonces import NonceStore
from core.store.access.people import StoredPeople
from core.store.access.tenants import TenantStore
from core.store.database import AWAY, Database
from core.store.ledger.ledger import PostgresLedger
from core.store.migrate import load_migrations
from core.store.money_in.collections import CollectionStore
from core.store.money_in.suspense import SuspenseStore
from core.store.on_call.alerts import AlertStore
from core.store.on_call.audit import AuditStore
from core.store.on_call.dead_letters import DeadLetterStore
from core.store.on_call.explain import StoryStore
from core.store.on_call.figures import read_figures, read_imbalance
from core.store.on_call.overview import StoredFigures
from core.store.on_call.purge import PurgeStore
from core.store.on_call.redrives import RedriveStore
from core.store.payments.idempotency import IdempotencyStore
from core.store.payments.intents import IntentStore
from core.store.payments.mandates import MandateStore
from core.store.recon.recon import ReconStore
from core.store.recon.register_matching import RegisterMatching
from core.store.recon.registers import RegisterStore
from core.store.replica import Replica
from core.store.settling import attempts, claims, facts, jobs, rails
from core.store.settling.announced_returns import AnnouncedStore
from core.store.settling.dispatch import PostgresDispatch, PostgresUpkeep
from core.store.settling.doubted_ends import DoubtedEndStore
from core.store.settling.evidence import EvidenceStore
from core.store.settling.outbox import OUTBOX_CHANNEL
from core.store.settling.parking import PostgresParking
from core.store.settling.stranded import StrandedStore
from core.store.terms.fees import FeeRuleStore
from core.store.terms.limits import LimitStore
from core.store.terms.liquidity import PostgresLiquidity
from core.store.terms.quotes import QuoteStore
from core.store.terms.rates import RateStore
from core.store.terms.routes import RouteStore
from core.store.told.event_wakes import EVENTS_CHANNEL
from core.store.told.events import EventHorizon, EventStore, EventWatch
from core.store.told.listener import listen
from core.store.told.webhook_queue import PostgresDeliveries
from core.store.told.webhooks import WebhookStore
from core.store.vault import PostgresVault
from core.store.wallets.wallets import WalletStore
from core.telemetry.catalogue import BOOKS_PROVEN
from core.telemetry.figures import show_figures, show_imbalance
from wire.client import StreamServers

SYSTEM_TENANT = UUID(int=0)
_RESOLVE_BATCH = 200
PASSING_FAULTS: tuple[type[Exception], ...] = (
    *AWAY,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
)
"""Faults that are nobody's request's: the database is away, restarting, full or busy, or transactions deadlocked."""
UNSTORABLE: tuple[type[Exception], ...] = (asyncpg.DataError,)
"""Faults of a value that was sent: no repeat of it is ever stored."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What use cases work with, as one database role."""

    unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]]
    ledger: Ledger
    intents: IntentStore
    idempotency: IdempotencyStore
    wallets: WalletStore
    routes: RouteStore
    fee_rules: FeeRuleStore
    fees: FeeBook
    limits: LimitBook
    limit_store: LimitStore
    exchange_rates: RateStore
    quotes: QuoteStore
    mandates: MandateStore
    liquidity: PostgresLiquidity
    tenants: TenantStore
    collections: CollectionStore
    doubts: DoubtedEndStore
    announced: AnnouncedStore
    suspense: SuspenseStore
    vault: PostgresVault
    jobs: Any
    attempts: Any
    claims: Any
    facts: Any
    rails: Any
    letters: DeadLetterStore
    redrives: RedriveStore
    alerts: AlertStore
    journal: AuditStore
    stories: StoryStore
    overview: StoredFigures
    approval_above: int
    recon: ReconStore
    break_approval_above_minor: int
    registers: RegisterStore
    matching: RegisterMatching
    register_pace: RegisterPace
    evidence: EvidenceStore
    pace: Pace
    review_within: timedelta
    shared_faults: tuple[type[Exception], ...] = PASSING_FAULTS
    result_reader: Callable[[str, str, str, str, int], Any] = read_result


@dataclass(frozen=True, slots=True)
class Core:
    """An open core: what the listeners and the background roles call."""

    settings: Settings
    app_database: Database
    worker_database: Database
    ports: Ports
    """As the application: confined to the caller's tenant."""
    worker_ports: Ports
    """As background work: every tenant."""
    read_ports: Ports
    """As the application, on a standby where one is named: only for what may be a little old."""
    authenticator: Authenticator
    worker_authenticator: Authenticator
    accept: AcceptService
    read: ReadService
    wallets: WalletService
    keys: KeyService
    tenants: TenantService
    events: EventService
    webhooks: WebhookService
    people: PeopleService
    issuer: Issuer | None
    """The identity provider of people, where one is set."""
    claims: ClaimRules

    async def missing_migrations(self) -> list[str]:
        """Return the migrations that this code needs and the database has not got."""
        async with self.worker_database.acquire() as connection:
            applied = {row["version"] for row in await connection.fetch("SELECT version FROM fleet.schema_migrations")}
        return [file.name for file in load_migrations() if file.version not in applied]


@asynccontextmanager
async def open_core(settings: Settings) -> AsyncIterator[Core]:
    """Open the pools and wire the services; closed at the end. Raises OSError where the database is away."""
    async with AsyncExitStack() as stack:
        app = await _connect(stack, settings, settings.database_url.get_secret_value(), "fleet-api")
        worker = await _connect(stack, settings, settings.database_worker_url.get_secret_value(), "fleet-worker")
        vault = PostgresVault(base64.b64decode(settings.master_key.get_secret_value()))
        pace = Pace(settings.inquiry_first_s, settings.inquiry_longest_s)
        ports, worker_ports = (_ports(each, vault, pace, settings) for each in (app, worker))
        read_ports = ports
        if settings.database_read_url is not None:
            standby = await _standby(stack, settings, settings.database_read_url.get_secret_value())
            read_ports = replace(ports, unit_of_work=Replica(app, standby, settings.read_behind_max_s).unit_of_work)
        quotas = Quotas(worker_ports.limits, worker_ports.limit_store)
        keys = KeyService(worker.unit_of_work, KeyStore(worker), vault, quotas)
        hub = _hub(settings, worker)
        yield Core(
            settings=settings,
            app_database=app,
            worker_database=worker,
            ports=ports,
            worker_ports=worker_ports,
            read_ports=read_ports,
            authenticator=Authenticator(KeyStore(app), NonceGate(NonceStore(app)), vault),
            worker_authenticator=Authenticator(KeyStore(worker), NonceGate(NonceStore(worker)), vault),
            accept=AcceptService(
                ports,
                batch=settings.accept_batch,
                in_flight=settings.accept_in_flight,
                confirm_within=timedelta(seconds=settings.confirm_within_s),
            ),
            read=ReadService(ports.unit_of_work, ports.intents, read_ports.unit_of_work),
            wallets=WalletService(
                ports.unit_of_work,
                ports.wallets,
                ports.ledger,
                Quotas(ports.limits, ports.limit_store),
            ),
            keys=keys,
            tenants=TenantService(worker.unit_of_work, worker_ports.tenants, keys),
            events=EventService(ports.unit_of_work, EventStore(), ports.intents, hub),
            webhooks=WebhookService(
                ports.unit_of_work,
                WebhookStore(),
                vault,
                hub.settled,
                Quotas(ports.limits, ports.limit_store),
                private=settings.webhooks_to_private,
            ),
            people=PeopleService(
                worker.unit_of_work,
                StoredPeople(),
                AuditStore(),
                idle=timedelta(seconds=settings.console_idle_s),
                longest=timedelta(seconds=settings.console_session_s),
            ),
            issuer=_issuer(settings),
            claims=ClaimRules(
                settings.oidc_name_claim,
                settings.oidc_role_claim,
                roles_of(settings.oidc_roles),
                settings.oidc_tenant_claim,
            ),
        )


def _issuer(settings: Settings) -> Issuer | None:
    if not settings.oidc_issuer:
        return None
    from core.bus.issuer_http import HttpIssuer  # what checks tokens is large, and few installations have an issuer

    secret = settings.oidc_client_secret.get_secret_value()
    return HttpIssuer(settings.oidc_issuer, settings.oidc_client_id, secret, api_audience=settings.oidc_api_audience)


async def _standby(stack: AsyncExitStack, settings: Settings, url: str) -> Database:
    """Open a pool that begins empty: a standby that is away must keep nobody from starting."""
    return await _connect(stack, settings, url, "fleet-read", min_size=0)


def _hub(settings: Settings, worker: Database) -> EventHub:
    pace = StreamPace(
        open_max=settings.event_streams_max,
        keep_alive_s=settings.event_stream_alive_s,
        longest_s=settings.event_stream_longest_s,
    )
    return EventHub(EventWatch(worker), partial(listen, settings.direct_url, EVENTS_CHANNEL), pace)


async def _connect(stack: AsyncExitStack, settings: Settings, url: str, name: str, min_size: int = 1) -> Database:
    database = await Database.connect(
        url,
        min_size=min_size,
        max_size=settings.db_pool_size,
        statement_cache_size=settings.db_statement_cache,
        application_name=name,
        slow_query_s=settings.slow_query_s,
    )
    stack.push_async_callback(database.close)
    return database


def _ports(database: Database, vault: PostgresVault, pace: Pace, settings: Settings) -> Ports:
    return Ports(
        unit_of_work=database.unit_of_work,
        # The engine joins our own unit of work, which is narrower than what the port asks of any engine.
        ledger=cast("Ledger", PostgresLedger(database, Context(None, "core"))),
        intents=IntentStore(),
        idempotency=IdempotencyStore(),
        wallets=WalletStore(),
        routes=RouteStore(),
        fee_rules=FeeRuleStore(),
        fees=FeeBook(FeeRuleStore()),
        limits=LimitBook(LimitStore()),
        limit_store=LimitStore(),
        exchange_rates=RateStore(),
        quotes=QuoteStore(),
        mandates=MandateStore(),
        liquidity=PostgresLiquidity(),
        tenants=TenantStore(),
        collections=CollectionStore(),
        doubts=DoubtedEndStore(),
        announced=AnnouncedStore(EvidenceStore(vault)),
        suspense=SuspenseStore(),
        vault=vault,
        jobs=jobs,
        attempts=attempts,
        claims=claims,
        facts=facts,
        rails=rails,
        letters=DeadLetterStore(vault),
        redrives=RedriveStore(),
        alerts=AlertStore(),
        journal=AuditStore(),
        stories=StoryStore(),
        overview=StoredFigures(),
        approval_above=settings.redrive_approval_above,
        recon=ReconStore(),
        break_approval_above_minor=settings.break_approval_above_minor,
        registers=RegisterStore(),
        matching=RegisterMatching(),
        register_pace=RegisterPace(
            settings.register_days_back, settings.register_edge_s, settings.register_ready_after_s
        ),
        evidence=EvidenceStore(vault),
        pace=pace,
        review_within=timedelta(seconds=settings.review_within_s),
    )


def background(core: Core, servers: StreamServers) -> BusDeps:
    """Wire the background roles: the bus to PostgreSQL and to the use cases, all under the worker role."""
    settings, database, ports = core.settings, core.worker_database, core.worker_ports
    parking = PostgresParking(database, ports.vault)
    rounds = Rounds(settings.recon_every_s, settings.recon_round_s)

    def unit_of_work() -> AbstractAsyncContextManager[Any]:
        return database.unit_of_work(Context(None, "core"))

    def looking() -> AbstractAsyncContextManager[Any]:
        return database.looking(Context(None, "core"))

    async def observe() -> None:
        show_figures(await read_figures(database))

    async def prove() -> None:
        show_imbalance(await read_imbalance(database))

    async def reconcile() -> None:
        # By their ids: whatever was late on one run is met by the next. Older ones follow by and by.
        now = datetime.now(UTC)
        await reconcile_intents(ports, Context(None, "core"), now - LATELY)
        await rounds.go_on(ports, Context(None, "core"), now)
        await want_registers(ports, Context(None, "core"), now)
        await compare_lately(ports, Context(None, "core"), now)

    async def prove_books() -> None:
        if await reconcile_ledger_alone(ports, Context(None, "core"), settings.books_longest_s) is not None:
            BOOKS_PROVEN.set_to_current_time()

    return BusDeps(
        settings=settings,
        servers=servers,
        store=PostgresDispatch(database),
        upkeep=PostgresUpkeep(database),
        parking=parking,
        listen=partial(listen, settings.direct_url, OUTBOX_CHANNEL),
        settle=ResultsReceiver(ports, parking, unit_of_work, servers),
        receive_dead_letters=DeadLettersReceiver(ports.letters, parking, unit_of_work),
        resolve=partial(act_where_due, looking, _rounds(ports, unit_of_work, settings.voids_per_minute)),
        observe=observe,
        prove=prove,
        reconcile=reconcile,
        prove_books=prove_books,
        redrive=partial(run_redrives_if_any, ports, unit_of_work, looking),
        instance=settings.instance or f"{socket.gethostname()}-{os.getpid()}",
        notify=notifier(core).step,
        complete=completer(core).step,
        purge=partial(_purger(core).run, ages_of(settings.keep.split()), lose=True),
    )


def _rounds(ports: Ports, unit_of_work: UnitOfWorkFactory, voids_per_minute: int) -> list[tuple[Look, Act]]:
    batch, memory = _RESOLVE_BATCH, ResolverMemory(voids_per_minute)
    return [
        (ports.jobs.due_jobs, partial(until_fewer, partial(resolve_due, ports, unit_of_work, memory, batch), batch)),
        (
            ports.intents.lock_unreviewed,
            partial(until_fewer, partial(expire_reviews, ports, unit_of_work, batch), batch),
        ),
        (ports.collections.notes_to_tell, partial(tell_again, ports, unit_of_work, batch)),
        (ports.doubts.due, partial(ask_about_ends, ports, unit_of_work, batch)),
        (ports.announced.due, partial(tell_unbooked, ports, unit_of_work, batch)),
    ]


def _purger(core: Core) -> Purger:
    database = core.worker_database
    return Purger(PurgeStore(), AuditStore(), lambda: database.unit_of_work(Context(None, "purge")), "purge")


def completer(core: Core) -> Completer:
    """Wire the completer, under the worker role."""
    settings, database = core.settings, core.worker_database
    return Completer(
        core.worker_ports,
        StrandedStore(),
        lambda: database.unit_of_work(Context(None, "completer")),
        every_s=settings.completer_every_s,
        lookback_days=settings.completer_lookback_days,
        limit=settings.completer_page,
        grace_s=settings.completer_grace_s,
    )


def notifier(core: Core) -> Notifier:
    """Wire the sending of webhooks, under the worker role."""
    settings, database = core.settings, core.worker_database
    return Notifier(
        PostgresDeliveries(database),
        EventHorizon(database).settled,
        WebhookSender(private=settings.webhooks_to_private, total_s=settings.webhook_call_s),
        core.worker_ports.vault,
        Schedule(settings.webhook_first_retry_s, settings.webhook_longest_retry_s, settings.webhook_attempts_max),
        NotifyPace(call_s=settings.webhook_call_s),
    )
