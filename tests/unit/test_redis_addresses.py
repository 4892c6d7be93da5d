"""What an address of Redis says, and what is none."""

import pytest

from wire.client import StreamServers, connect_redis


def test_rails_of_one_server_share_a_client_and_of_a_cluster_each_slot_has_its_own() -> None:
    one = StreamServers("redis://u:p@h:1/0", "x")
    assert one.of("promptpay") is one.of("sbp")
    cluster = StreamServers("redis-cluster://u:p@h:1,i:2/0", "x")
    assert cluster.of("promptpay") is cluster.of("promptpay")
    assert cluster.of("promptpay") is not cluster.of("promptpay.1")
    watched = StreamServers("redis-sentinel://u:p@h:1,i:2/0?master=fleet", "x")
    assert watched.of("promptpay") is watched.of("sbp")


@pytest.mark.parametrize(
    "address",
    [
        "nonsense", "http://h:1", "redis-sentinel://h:1/0", "redis-sentinel://h:1/0?master=", "redis-cluster://h:port/0",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_anything_is_opened(address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        StreamServers(address, "x")


def test_a_cluster_has_no_one_client() -> None:
    with pytest.raises(ValueError, match="many servers"):
        connect_redis("redis-cluster://h:1/0", "x")


def test_sentinels_have_a_login_of_their_own() -> None:
    address = "redis-sentinel://core:secret@h:1/0?master=fleet&sentinel_username=watcher&sentinel_password=other"
    pool = StreamServers(address, "x").of("sbp").connection_pool
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("core", "secret")
    assert not {"master", "sentinel_username", "sentinel_password"} & pool.connection_kwargs.keys()
