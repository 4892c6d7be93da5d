"""A rail's jobs over several streams: everyone comes to the same part, and one part changes no name."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from adapters.runtime.settings import RuntimeSettings
from core.settings import Settings
from schemas.streams import WHOLE, Part, jobs_stream, parts_of, shard_of, shards_of, whole_stream
from wire.acl import adapter_rules


@given(st.uuids(), st.integers(1, 64))
def test_every_job_is_in_exactly_one_part(job_id: UUID, count: int) -> None:
    assert sum(part.has(job_id) for part in parts_of(count)) == 1


def test_one_part_is_the_rail_itself_and_takes_everything() -> None:
    assert shards_of("promptpay", 1) == ["promptpay"]
    assert parts_of(1) == [WHOLE]
    assert WHOLE.has(UUID(int=12345))


def test_more_parts_keep_the_first_stream_and_add_others_in_other_slots() -> None:
    streams = [jobs_stream(shard) for shard in shards_of("promptpay", 4)]
    assert streams == ["{promptpay}:jobs", "{promptpay.1}:jobs", "{promptpay.2}:jobs", "{promptpay.3}:jobs"]
    assert len({key_slot(stream.encode()) for stream in streams}) == 4
    assert {whole_stream(stream) for stream in streams} == {"{promptpay}:jobs"}
    assert [shard_of(stream) for stream in streams] == shards_of("promptpay", 4)


def test_what_is_no_stream_of_a_rail_has_no_whole() -> None:
    with pytest.raises(ValueError, match="not a stream"):
        whole_stream("jobs")


_CORE = {
    "DATABASE_URL": "postgresql://x", "DATABASE_WORKER_URL": "postgresql://x", "REDIS_URL": "redis://x",
    "FLEET_MASTER_KEY": "A" * 43 + "=",
}  # fmt: skip
_ADAPTER = {"REDIS_URL": "redis://x", "CORE_INTERNAL_URL": "http://x", "CORE_KEY_ID": "k", "CORE_KEY_SECRET": "s"}


def test_the_core_reads_how_many_parts_each_rail_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_CORE, "FLEET_RAILS": "promptpay,sbp", "FLEET_RAIL_SHARDS": "promptpay=2"}.items():
        monkeypatch.setenv(name, value)
    assert Settings().rail_parts == [("promptpay", Part(0, 2)), ("promptpay", Part(1, 2)), ("sbp", WHOLE)]


@pytest.mark.parametrize("wrong", ["promptpay", "promptpay=0", "promptpay=65", "promptpay=-1", "promptpay=two"])
def test_the_core_refuses_a_count_that_is_none(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    for name, value in {**_CORE, "FLEET_RAIL_SHARDS": wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="FLEET_RAIL_SHARDS"):
        Settings()


def test_an_adapter_reads_every_part_or_those_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_ADAPTER, "FLEET_SHARDS": "3"}.items():
        monkeypatch.setenv(name, value)
    assert RuntimeSettings().parts == parts_of(3)
    monkeypatch.setenv("FLEET_READ_SHARDS", "0, 2")
    assert [part.number for part in RuntimeSettings().parts] == [0, 2]
    monkeypatch.setenv("FLEET_READ_SHARDS", "3")
    with pytest.raises(ValueError, match="names no part"):
        RuntimeSettings()


def test_an_adapters_user_reaches_its_own_parts_alone() -> None:
    rules = " ".join(adapter_rules("promptpay", 2))
    assert "~{promptpay.1}:jobs" in rules
    assert "~{promptpay.2}:jobs" not in rules
    assert "~{promptpay.1}" not in " ".join(adapter_rules("promptpay"))
