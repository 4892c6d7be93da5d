"""Writes the contract for other languages: a JSON Schema per message, an AsyncAPI document of the streams.

python -m schemas.generate           write schemas/json/
python -m schemas.generate --check   exit 1 and name each file that differs from the models
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.api import (
    ConfirmRequest,
    IntentBatchRequest,
    IntentBatchResponse,
    IntentPage,
    IntentRequest,
    IntentView,
    Problem,
    WalletHistory,
    WalletRequest,
    WalletView,
)
from schemas.collections import ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.dead_letters import DeadLetter
from schemas.events import EventPage, IntentEvent
from schemas.exchange import QuoteRequest, QuoteView, RatesRequest
from schemas.jobs import Job
from schemas.permits import PermitRequest, PermitResponse
from schemas.rails import EvidenceBatch, RailCutOff, RailRegistration
from schemas.results import Result
from schemas.wallets import WalletChangeRequest, WalletEventList

TARGET = Path(__file__).parent / "json"

MODELS: dict[str, type[BaseModel]] = {
    "confirm_request": ConfirmRequest,
    "dead_letter": DeadLetter,
    "event_page": EventPage,
    "evidence_batch": EvidenceBatch,
    "intent_batch_request": IntentBatchRequest,
    "intent_batch_response": IntentBatchResponse,
    "intent_event": IntentEvent,
    "intent_page": IntentPage,
    "intent_request": IntentRequest,
    "intent_view": IntentView,
    "job": Job,
    "permit_request": PermitRequest,
    "permit_response": PermitResponse,
    "problem": Problem,
    "provider_payment_answers": ProviderPaymentAnswers,
    "provider_payment_batch": ProviderPaymentBatch,
    "quote_request": QuoteRequest,
    "quote_view": QuoteView,
    "rail_cut_off": RailCutOff,
    "rail_registration": RailRegistration,
    "rates_request": RatesRequest,
    "result": Result,
    "wallet_change_request": WalletChangeRequest,
    "wallet_event_list": WalletEventList,
    "wallet_history": WalletHistory,
    "wallet_request": WalletRequest,
    "wallet_view": WalletView,
}

# stream suffix -> (messages, who writes, who reads)
STREAMS = {
    "jobs": (("job",), "core relay", "adapter, group `adapters`"),
    "control": (("job",), "core relay", "adapter, group `adapters`"),
    "results": (("result", "rail_cut_off"), "adapter", "core, group `core`"),
    "jobs.dlq": (("dead_letter",), "adapter runtime", "core, group `core`"),
    "results.dlq": (("result",), "core", "anyone"),
}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of the streams of one rail."""
    channels, operations = {}, {}
    for suffix, (carried, writer, reader) in STREAMS.items():
        name = suffix.replace(".", "_")
        channels[name] = {
            "address": "{rail}:" + suffix,
            "description": f"Redis key `{{<rail>}}:{suffix}` (the braces are the cluster hash tag). "
            f"Written by {writer}; read by {reader}.",
            "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in carried},
        }
        operations[f"write_{name}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": writer,
        }
        operations[f"read_{name}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": reader,
        }
    messages = {
        message: {
            "name": message,
            "contentType": "application/json",
            "summary": "Fields of an entry: v, id, type, body (this payload as JSON text), traceparent (if traced).",
            "payload": {"$ref": f"./{message}.json"},
        }
        for message in sorted({message for carried, _, _ in STREAMS.values() for message in carried})
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "psp-fleet streams", "version": "1"},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def documents() -> dict[str, str]:
    """Return file name -> text of every generated document."""
    rendered: dict[str, Any] = {f"{name}.json": model.model_json_schema() for name, model in MODELS.items()}
    rendered["asyncapi.json"] = asyncapi()
    return {name: json.dumps(body, indent=1, sort_keys=True) + "\n" for name, body in rendered.items()}


def main(arguments: list[str]) -> int:
    """Write or check the documents; returns the exit code."""
    wanted = documents()
    if arguments == ["--check"]:
        present = {path.name: path.read_text() for path in TARGET.glob("*.json")}
        differing = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
        for name in differing:
            sys.stderr.write(f"schemas/json/{name} differs from the models: run python -m schemas.generate\n")
        return 1 if differing else 0
    TARGET.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
