"""python -m fleet.deploy secrets | setup | migrate | bank: the jobs that run before the processes of a deployment.

secrets   write what is missing under --home; needs nothing
setup     migrate, then create the first tenant, its routes and its keys (compose)
migrate   migrate, and give the roles the passwords of DATABASE_URL and DATABASE_WORKER_URL (Kubernetes)
bank      open our account at the bank of the sandbox (compose)
"""

import argparse
import asyncio
import sys
from pathlib import Path

import asyncpg

from core.settings import shard_counts
from core.store.migrate import MigrationError
from fleet.deploy.secrets import Places, write_secrets
from fleet.deploy.setup import bring_up_to_date, set_up
from fleet.stack.bank import open_account
from fleet.stack.provision import RoleUrls
from schemas.streams import RAIL_PATTERN, RAIL_WORDS
from wire.environment import SettingsError, read_variable


def main(arguments: list[str] | None = None) -> int:
    """Run one job. Exit code 0: done; 1: the database refused; 2: wrong usage or settings; 4: no answer."""
    parser = argparse.ArgumentParser(
        prog="python -m fleet.deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=("secrets", "setup", "migrate", "bank"))
    parser.add_argument("--home", type=Path, default=Path("/secrets"), help="where the directories of secrets are")
    parser.add_argument("--rails", default="promptpay", help="rails, divided by commas")
    parser.add_argument("--shards", default="", help="rails over several streams, as FLEET_RAIL_SHARDS: promptpay=4")
    parser.add_argument("--postgres", default="postgres:5432", help="host and port as the processes reach them")
    parser.add_argument("--redis", default="redis:6379", help="host and port as the processes reach them")
    parser.add_argument("--bank", default="http://mock-bank:9000", help="address of the bank of the sandbox")
    chosen = parser.parse_args(arguments)
    rails = [name.strip() for name in chosen.rails.split(",") if name.strip()]
    if wrong := [name for name in rails if RAIL_PATTERN.fullmatch(name) is None]:
        parser.error(f"{wrong[0]!r} is no rail's name: {RAIL_WORDS}")
    try:
        if chosen.job == "secrets":
            shards = shard_counts(chosen.shards)
            written = write_secrets(chosen.home, rails, Places(chosen.postgres, chosen.redis), shards)
            _say(f"{len(written)} files written under {chosen.home}")
        elif chosen.job == "setup":
            asyncio.run(set_up(chosen.home, _urls(), _variable("FLEET_MASTER_KEY"), rails))
            _say(f"ready for {', '.join(rails)}")
        elif chosen.job == "bank":
            asyncio.run(open_account(chosen.bank))
            _say("the account is open")
        else:
            applied = asyncio.run(bring_up_to_date(_urls()))
            _say("\n".join(f"applied {name}" for name in applied) or "nothing to apply: up to date")
    except (MigrationError, asyncpg.PostgresError) as error:
        return _fail(error, 1)
    except (OSError, asyncpg.InterfaceError) as error:
        return _fail(error, 4)
    except (SettingsError, ValueError) as error:
        return _fail(error, 2)
    return 0


def _urls() -> RoleUrls:
    names = ("DATABASE_ADMIN_URL", "DATABASE_URL", "DATABASE_WORKER_URL")
    return RoleUrls(*(_variable(name) for name in names))


def _variable(name: str) -> str:
    value = read_variable(name)
    if not value:
        raise SettingsError(f"set {name} or {name}_FILE")
    return value


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"deploy: {type(error).__name__}: {' '.join(str(error).split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
