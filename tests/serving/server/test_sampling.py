"""Of how many requests the log keeps which: never many more than it may, each at a share that it tells."""

from __future__ import annotations

import pytest

from bike_pipeline.serving.server.sampling import Sampler

SECOND = 1_000_000_000


def rates_of(sampler: Sampler, per_second: int, seconds: float, since: float = 0.0, prefix: str = "r") -> list[float]:
    """Return the rate of each request of so many a second, 0.0 for those that are not kept."""
    start = int(since * SECOND)
    return [
        sampler.takes(f"{prefix}-{start + n:x}", start + n * SECOND // per_second)
        for n in range(int(per_second * seconds))
    ]


def by_second(rates: list[float], per_second: int) -> list[int]:
    """Return how many requests were kept in each second."""
    return [sum(map(bool, rates[at : at + per_second])) for at in range(0, len(rates), per_second)]


def test_as_many_as_may_be_kept_are_all_kept():
    assert set(rates_of(Sampler(1.0, 500), 490, 20)) == {1.0}


@pytest.mark.parametrize("per_second", [600, 900, 1_100, 4_000, 20_000])
def test_of_more_about_so_many_are_kept_and_stand_for_all_of_them(per_second):
    rates = rates_of(Sampler(1.0, 500), per_second, 20)
    kept = by_second(rates, per_second)
    # The first second finds out how many come.
    assert max(kept[1:]) <= 1.6 * 500
    assert min(kept[1:]) >= 150
    assert sum(kept[1:]) / 19 <= 550
    told = sum(1.0 / rate for rate in rates if rate)
    assert told == pytest.approx(len(rates), rel=0.05)
    assert {rate for rate in rates if rate} <= {2.0**-n for n in range(10)}


def test_a_rise_is_met_within_its_first_second():
    sampler = Sampler(1.0, 500)
    rates_of(sampler, 100, 10)
    kept = by_second(rates_of(sampler, 20_000, 3, since=10), 20_000)
    assert kept[0] <= 500 + 250 * 8


def test_when_fewer_come_again_all_are_kept_again():
    sampler = Sampler(1.0, 500)
    rates_of(sampler, 20_000, 3)
    assert by_second(rates_of(sampler, 100, 6, since=3), 100)[-1] == 100
    # After a silence at once.
    sampler = Sampler(1.0, 500)
    rates_of(sampler, 20_000, 3)
    assert set(rates_of(sampler, 100, 1, since=60)) == {1.0}


def test_the_share_of_the_settings_is_the_most():
    rates = rates_of(Sampler(0.3, 500), 4_000, 20)
    assert {rate for rate in rates if rate} <= {0.3 / 2**n for n in range(6)}
    assert sum(1.0 / rate for rate in rates if rate) == pytest.approx(len(rates), rel=0.05)
    assert by_second(rates, 4_000)[-1] <= 800
    few = rates_of(Sampler(0.3, 500), 100, 20)
    assert sum(map(bool, few)) / len(few) == pytest.approx(0.3, abs=0.05)
    assert not any(rates_of(Sampler(0.0, 500), 100, 20))


def test_without_a_bound_all_are_kept():
    assert set(rates_of(Sampler(1.0, 0), 20_000, 3)) == {1.0}


def test_two_servers_keep_the_same_requests():
    busy, quiet = Sampler(1.0, 125), Sampler(1.0, 500)
    by_busy, by_quiet = rates_of(busy, 4_000, 10), rates_of(quiet, 4_000, 10)
    # After the first second the busy one keeps a smaller share.
    pairs = [*zip(by_busy, by_quiet, strict=True)][4_000:]
    assert sum(one > 0.0 for one, _ in pairs) > 100
    assert all(other for one, other in pairs if one)


@pytest.mark.parametrize("request_id", [f"same-{n}" for n in range(8)])
def test_one_id_again_and_again_is_kept_no_more_often_than_others(request_id):
    sampler = Sampler(1.0, 500)
    kept = [sum(sampler.takes(request_id, s * SECOND + n * 50_000) > 0.0 for n in range(20_000)) for s in range(5)]
    assert max(kept) <= 500 + 250 * 14
