"""Fees over HTTP: set, list and disable rules under a key that names FEES; try a payment without making it."""

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import parse, path_id
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import FEES_SCOPE
from core.services.terms.set_fees import disable_rule, dry_run, list_rules, list_versions, set_rule
from core.store.terms.limits import stored_quotas
from schemas.fees import FeeDryRunRequest, FeeDryRunView, FeeRuleList, FeeRuleRequest, FeeRuleView
from schemas.limits import QuotaObject


class FeeRoutes(SignedRoutes):
    """The routes of fees."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/fee-rules", self.set_rule, FeeRuleView, 201, FeeRuleRequest),
            ("GET", "/v1/fee-rules", self.list_rules, FeeRuleList, 200, None),
            ("GET", "/v1/fee-rules/{rule_id}/versions", self.list_versions, FeeRuleList, 200, None),
            ("POST", "/v1/fee-rules/{rule_id}/disable", self.disable_rule, FeeRuleView, 200, None),
            ("POST", "/v1/fees:dry-run", self.dry_run, FeeDryRunView, 200, FeeDryRunRequest),
        )

    @tells(repeats=True)
    async def set_rule(self, request: Request) -> Response:
        """Keep a fee rule as the next version of its name; a repeat answers 200 and changes nothing."""
        caller, body = await self._operator(request, FEES_SCOPE)
        asked = parse(FeeRuleRequest, body, request.headers.get("content-type"))
        ports = self._core.ports
        async with ports.unit_of_work(caller.context()) as uow:
            actor = caller.context().actor
            view, is_new = await set_rule(uow, ports.fee_rules, ports.wallets, caller.tenant_id, actor, asked)
            if is_new:
                await stored_quotas().check(uow, caller.tenant_id, QuotaObject.FEE_RULES)
        return json_answer(view, 201 if is_new else 200)

    async def list_rules(self, request: Request) -> Response:
        """List the newest version of every rule, disabled ones too."""
        caller, _ = await self._operator(request, FEES_SCOPE)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            found = await list_rules(uow, self._core.ports.fee_rules, caller.tenant_id)
        return json_answer(FeeRuleList(items=found))

    async def list_versions(self, request: Request) -> Response:
        """List every version of a rule, the newest first."""
        caller, _ = await self._operator(request, FEES_SCOPE)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            rule_id = path_id(request, "rule_id")
            found = await list_versions(uow, self._core.ports.fee_rules, caller.tenant_id, rule_id)
        return json_answer(FeeRuleList(items=found))

    async def disable_rule(self, request: Request) -> Response:
        """Take nothing by this rule any more; payments that were priced keep their fees."""
        caller, _ = await self._operator(request, FEES_SCOPE)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            rule_id, actor = path_id(request, "rule_id"), caller.context().actor
            view = await disable_rule(uow, self._core.ports.fee_rules, caller.tenant_id, actor, rule_id)
        return json_answer(view)

    async def dry_run(self, request: Request) -> Response:
        """Show the fees of a payment that is not made, and why each rule applied or not."""
        caller, body = await self._signed(request)
        asked = parse(FeeDryRunRequest, body, request.headers.get("content-type"))
        caller.require_operation(asked.operation)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            view = await dry_run(uow, self._core.ports.fee_rules, caller.tenant_id, asked)
        return json_answer(view)
