"""What start-up made is gathered in huge pages, where the system has any to give."""

import ctypes
import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wire import memory

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SETTLES = """
import gc
from pathlib import Path
from wire.memory import settle_memory
made = [bytes(100) for _ in range(1_000_000)]
settle_memory()
print(gc.get_freeze_count(), Path("/proc/self/smaps_rollup").read_text())
"""


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this system gives no huge pages"
)
def test_a_process_that_settled_holds_most_of_what_it_made_in_huge_pages() -> None:
    child = [sys.executable, "-c", SETTLES]
    told = subprocess.run(child, capture_output=True, text=True, check=True, timeout=60).stdout
    held = dict(re.findall(r"^(\w+): +(\d+) kB$", told, re.MULTILINE))
    assert int(told.split()[0]) > 1_000
    assert int(held["AnonHugePages"]) > int(held["Anonymous"]) / 2, told


@pytest.mark.parametrize("told", ["always madvise [never]", None], ids=["told to use none", "without any"])
def test_a_system_without_huge_pages_is_left_alone(
    told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        (tmp_path / "hpage_pmd_size").write_text("2097152")
        (tmp_path / "enabled").write_text(told)
    monkeypatch.setattr(memory, "_HUGE_PAGES", tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("it was asked all the same"))
    threshold = gc.get_threshold()
    try:
        memory.settle_memory()
    finally:
        gc.set_threshold(*threshold)
