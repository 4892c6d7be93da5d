"""What operators take of the objects that Kubernetes itself does not know, and of these the fields that we use alone.

Written after KEDA's "ScaledObject specification", "Authentication" and "Redis Streams" scalers (keda.sh/docs), the API
reference of the Prometheus operator (prometheus-operator.dev/docs/api-reference) and that of External Secrets
(external-secrets.io, ExternalSecret). A server drops a field that it does not know: here none passes.
"""

from typing import Any, Final

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_DIGITS: Final[Schema] = {"type": "string", "pattern": "^[1-9][0-9]*$"}
_DURATION: Final[Schema] = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
_TEXTS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}


def _record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


def _some(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _redis_trigger(kind: str, where: dict[str, Schema]) -> Schema:
    """Return what a trigger on a stream is: its count of one measure, for each measure has a target of its own."""
    common = {**where, "stream": _TEXT, "consumerGroup": _TEXT, "enableTLS": {"enum": ["true", "false"]}}
    measures = [_record({**common, measure: _DIGITS}) for measure in ("lagCount", "pendingEntriesCount")]
    return _record(
        {"type": {"const": kind}, "metadata": {"oneOf": measures}, "authenticationRef": _record({"name": _TEXT})}
    )


_ADDRESS: Final[Schema] = {"type": "string", "pattern": "^[^:,]+:[0-9]{1,5}$"}
_ADDRESSES: Final[Schema] = {"type": "string", "pattern": "^[^:,]+:[0-9]{1,5}(,[^:,]+:[0-9]{1,5})*$"}
_TRIGGER: Final[Schema] = {
    "oneOf": [
        _redis_trigger("redis-streams", {"address": _ADDRESS}),
        _redis_trigger("redis-cluster-streams", {"addresses": _ADDRESSES}),
        _redis_trigger("redis-sentinel-streams", {"addresses": _ADDRESSES, "sentinelMaster": _TEXT}),
    ]
}
_RULE: Final[Schema] = {
    "oneOf": [
        _record({"record": _TEXT, "expr": _TEXT}, {"labels": _TEXTS}),
        _record({"alert": _TEXT, "expr": _TEXT}, {"for": _DURATION, "labels": _TEXTS, "annotations": _TEXTS}),
    ]
}
_SPECS: Final[dict[tuple[str, str], Schema]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): _record(
        {
            "scaleTargetRef": _record({"name": _TEXT}),
            "minReplicaCount": _COUNT,
            "maxReplicaCount": _COUNT,
            "pollingInterval": _COUNT,
            "cooldownPeriod": _COUNT,
            "triggers": _some(_TRIGGER),
        }
    ),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): _record(
        {
            "secretTargetRef": _some(
                _record({"parameter": {"enum": ["username", "password"]}, "name": _TEXT, "key": _TEXT})
            )
        }
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): _record(
        {
            "selector": _record({"matchLabels": _TEXTS}),
            "podMetricsEndpoints": _some(
                _record(
                    {"port": _TEXT, "path": _TEXT, "interval": _DURATION},
                    {"relabelings": _some(_record({"sourceLabels": _some(_TEXT), "targetLabel": _TEXT}))},
                )
            ),
        }
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _record(
        {"groups": _some(_record({"name": _TEXT, "rules": _some(_RULE)}))}
    ),
    ("external-secrets.io/v1", "ExternalSecret"): _record(
        {
            "refreshInterval": _DURATION,
            "secretStoreRef": _record({"name": _TEXT, "kind": {"enum": ["SecretStore", "ClusterSecretStore"]}}),
            "target": _record({"name": _TEXT, "creationPolicy": {"enum": ["Owner", "Orphan", "Merge", "None"]}}),
            "data": _some(_record({"secretKey": _TEXT, "remoteRef": _record({"key": _TEXT, "property": _TEXT})})),
        }
    ),
}
KINDS: Final = {kind for _, kind in _SPECS}
"""The kinds that operators bring."""


def faults_of(made: dict[str, Any]) -> list[str]:
    """Return what an operator would not understand in an object of one of `KINDS`, one line each."""
    spec = _SPECS.get((made["apiVersion"], made["kind"]))
    if spec is None:
        return [f"{made['kind']} is not of {made['apiVersion']}"]
    metadata = _record({"name": _TEXT, "labels": _TEXTS}, {"annotations": _TEXTS, "namespace": _TEXT})
    whole = _record({"apiVersion": _TEXT, "kind": _TEXT, "metadata": metadata, "spec": spec})
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(made)]
