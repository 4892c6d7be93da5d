"""Where webhooks may go, and when they are tried again."""

import pytest

from core.domain.webhooks import Schedule, UrlRefusedError, check_address, check_url


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/a",
        "ftp://hooks.example",
        "https://user:pass@hooks.example",
        "https://hooks.example/#part",
        "https://",
        "https://hooks.example:0/",
        "https://hooks.example:99999/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://hööks.example/",
        "https://hooks.example/a b",
        "//hooks.example",
    ],
)
def test_an_address_that_no_webhook_goes_to_is_refused_when_it_is_named(url: str) -> None:
    with pytest.raises(UrlRefusedError):
        check_url(url, private=False)


def test_a_public_name_is_taken_and_its_port_is_that_of_https() -> None:
    assert check_url("https://hooks.example/fleet?x=1", private=False) == ("hooks.example", 443)
    assert check_url("https://hooks.example:8443", private=False) == ("hooks.example", 8443)
    assert check_url("https://8.8.8.8/", private=False) == ("8.8.8.8", 443)


def test_a_developers_machine_may_receive_by_http_where_that_is_set() -> None:
    assert check_url("http://127.0.0.1:9000/hook", private=True) == ("127.0.0.1", 9000)
    with pytest.raises(UrlRefusedError):
        check_url("gopher://127.0.0.1", private=True)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fe80::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "2001:0:a00:1::",
        "not an address",
    ],
)
def test_an_address_that_is_not_of_the_public_internet_is_not_called(address: str) -> None:
    with pytest.raises(UrlRefusedError):
        check_address(address, private=False)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_called(address: str) -> None:
    check_address(address, private=False)


def test_waits_grow_to_a_longest_one_over_days_and_then_it_is_given_up() -> None:
    schedule = Schedule()
    waits = [schedule.wait_s(attempts, 0.5) for attempts in range(1, 14)]
    assert [round(wait) for wait in waits[:5] if wait is not None] == [5, 20, 80, 320, 1280]
    assert max(wait for wait in waits if wait is not None) == 43_200
    assert sum(wait for wait in waits if wait is not None) > 3 * 86_400
    assert schedule.wait_s(14, 0.5) is None


def test_waits_are_spread_and_a_receiver_that_asks_for_more_time_gets_it() -> None:
    schedule = Schedule(first_s=10, longest_s=100)
    assert [round(schedule.wait_s(1, draw) or 0) for draw in (0, 0.5, 0.999)] == [8, 10, 12]
    assert schedule.wait_s(1, 0.5, told_s=60) == 60
    assert schedule.wait_s(1, 0.5, told_s=10**6) == 100
    assert schedule.wait_s(1, 0.5, told_s=1) == 10
