"""Options of the simulation: replay one seed, or run more of them."""

import pytest

from tests.simulation.scenario import DEFAULT_SEEDS

_BLOCK = 40


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --seed and --seeds; they are known where this folder is named on the command line."""
    group = parser.getgroup("simulation")
    group.addoption("--seed", type=int, default=None, help="replay one seed and print its trace")
    group.addoption("--seeds", type=int, default=None, help="how many seeds to run instead of the default")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that take a `block` of seeds their share of them."""
    if "block" not in metafunc.fixturenames:
        return
    seed = metafunc.config.getoption("--seed", default=None)
    seeds = metafunc.config.getoption("--seeds", default=None) or DEFAULT_SEEDS
    blocks = (
        [range(seed, seed + 1)]
        if seed is not None
        else [range(start, min(start + _BLOCK, seeds)) for start in range(0, seeds, _BLOCK)]
    )
    metafunc.parametrize("block", blocks, ids=lambda block: f"{block.start}-{block.stop - 1}")
