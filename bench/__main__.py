"""`./dev bench [SECTION …] [--json] [--report]`: measure what has a goal."""

import argparse
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import orjson
import uvloop

from bench import adapter, dlq, latency, ledger, loop, memory, neighbours, permits, recon, stream, transfers
from bench.databases import bench_database
from bench.measurement import Measurement, Surroundings
from fleet.stack.installation import install

REPORT = Path(__file__).parent / "REPORT.md"


async def _ledger() -> list[Measurement]:
    async with bench_database("fleet_bench") as made:
        await install(made.home / "keys.json", made.urls, made.secrets.master_key, [])
        return await ledger.run(made.urls.admin, made.urls.app)


SECTIONS: Mapping[str, Callable[[], Awaitable[list[Measurement]]]] = {
    "ledger": _ledger,
    "stream": stream.run,
    "loop": loop.run,
    "latency": latency.run,
    "memory": memory.run,
    "dlq": dlq.run,
    "recon": recon.run,
    "adapter": adapter.run,
    "neighbours": neighbours.run,
    "permits": permits.run,
    "p2p": transfers.run,
    "fees": transfers.run_fees,
}


def main() -> int:
    """Measure the sections asked for. Exit code 0, whether goals are met or not: a figure is a fact."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--json", action="store_true", help="print [{name, value, unit, goal, met}]")
    parser.add_argument("--report", action="store_true", help="write bench/REPORT.md")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.sections) - set(SECTIONS)):
        parser.error(f"unknown section {', '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    found: dict[str, tuple[list[Measurement], Surroundings]] = {}
    for name in chosen.sections or SECTIONS:
        print(f"{name} …", file=sys.stderr)
        with Surroundings() as around:
            measured = uvloop.run(_await(SECTIONS[name]))
        found[name] = (measured, around)
        for each in measured:
            print(f"  {_line(each)}", file=sys.stderr)
        print(f"  {around}", file=sys.stderr)
    if chosen.json:
        figures = [each for measured, _ in found.values() for each in measured]
        figures += [each for name, (_, around) in found.items() for each in around.figures(name)]
        printed = orjson.dumps([each.as_object() for each in figures], option=orjson.OPT_INDENT_2)
        sys.stdout.write(printed.decode() + "\n")
    if chosen.report:
        REPORT.write_text(_report(found))
    return 0


async def _await(section: Callable[[], Awaitable[list[Measurement]]]) -> list[Measurement]:
    return await section()


def _line(each: Measurement) -> str:
    verdict = "" if each.met is None else f"   goal {each.goal} {'met' if each.met else 'NOT met'}"
    return f"{each.name}: {each.value:,g} {each.unit}{verdict}"


def _report(found: Mapping[str, tuple[list[Measurement], Surroundings]]) -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    packages = ", ".join(f"{name} {version(name)}" for name in ("asyncpg", "redis", "faststream", "fastapi", "uvloop"))
    lines = [
        "# Measured",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} "
            f"{platform.machine()}, Python {platform.python_version()}; PostgreSQL 18 with fsync on and Valkey 9 with "
            f"an append-only file, from wheels; {packages}. Everything, load generator included, ran on this machine."
        ),
        "",
        "Written by `./dev bench --report`. Read figures of one machine as ratios.",
    ]
    for name, (measured, around) in found.items():
        lines += ["", f"## {name}", "", f"{around}.".capitalize(), ""]
        lines += ["| what | value | unit | goal | met |", "|---|---:|---|---|---|"]
        for each in measured:
            met = {None: "", True: "yes", False: "no"}[each.met]
            lines.append(f"| {each.name} | {each.value:,g} | {each.unit} | {each.goal} | {met} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
