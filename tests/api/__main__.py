"""Runs the checks of the API against a platform that it starts, and prints what they did."""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import booking
import fuzz
import scene
from platform_process import Platform

FOLDER = Path(__file__).parent
ROLES = ["anonymous", "customer", "organizer", "operator", "admin"]


def validate(document: Path) -> str:
    """The document against the schema of OpenAPI 3.1."""
    subprocess.run(["openapi-spec-validator", "--schema", "3.1", document], check=True, stdout=subprocess.DEVNULL)
    return "valid OpenAPI 3.1"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/api/run", description=__doc__)
    parser.add_argument("binary", nargs="?", type=Path, default=Path("target/release/eventicket"))
    parser.add_argument("--long", action="store_true", help="at least 2,000 cases a role, of a new seed")
    parser.add_argument("--role", action="append", choices=ROLES, help="only this one; may be given again")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run")
    arguments = parser.parse_args()
    # A job that is ended stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    failed = []
    with tempfile.TemporaryDirectory(prefix="eventicket-api-") as work, Platform(arguments.binary, Path(work)) as platform:
        document = Path(work, "openapi.json")
        document.write_text(platform.get("/openapi.json").text)
        checks = {"document": lambda: validate(document), "client": lambda: booking.walk(platform, document, Path(work))}
        things = scene.Scene(platform)
        effort = fuzz.Effort.long(arguments.seed) if arguments.long else fuzz.Effort.short(arguments.seed)
        for role in arguments.role or ROLES:
            checks[role] = lambda role=role: fuzz.fuzz(things.seen_by(role), effort, Path(work))
        for name, check in checks.items():
            started = time.monotonic()
            try:
                told = check()
            except (AssertionError, subprocess.CalledProcessError, fuzz.Found) as error:
                failed.append(name)
                told = f"FAILED: {error}"
            print(f"{name:<10} {time.monotonic() - started:6.1f} s  {told}", flush=True)
    print("all hold" if not failed else f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
