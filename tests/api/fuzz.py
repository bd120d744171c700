"""Schemathesis against the platform as one role: what it generates from the document, and what it found."""

import json
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scene import Seen

FOLDER = Path(__file__).parent
# Cases that the long form makes at least, for each role.
LEAST = 2_000
# The short form always makes the same cases, so that what it finds is the change's.
SHORT_SEED = 1


class Found(Exception):
    """What schemathesis found, in its own words."""


@dataclass
class Effort:
    """How much is tried."""

    seed: int
    # Cases of an operation in the phases that draw at random.
    examples: int
    # The phases; the short form leaves out the sequences of requests.
    phases: str
    least: int

    @classmethod
    def short(cls, seed: int | None) -> "Effort":
        """A look at everything, within seconds."""
        return cls(SHORT_SEED if seed is None else seed, 4, "examples,coverage,fuzzing", 0)

    @classmethod
    def long(cls, seed: int | None) -> "Effort":
        """Thousands of cases a role, other ones each time."""
        return cls(random.randrange(2**32) if seed is None else seed, 30, "examples,coverage,fuzzing,stateful", LEAST)


def fuzz(seen: Seen, effort: Effort, work: Path) -> str:
    """Runs schemathesis; an error is what it found. Returns the figures of its report."""
    folder = work / seen.role
    folder.mkdir()
    # Lists of JSON are lists of TOML, too.
    dictionaries = [f"{name} = {{ values = {json.dumps(values)} }}" for name, values in seen.things.items()]
    config = [(FOLDER / "schemathesis.toml").read_text(), "[dictionaries]", *dictionaries, ""]
    (folder / "schemathesis.toml").write_text("\n".join(config))
    report = folder / "report.json"
    command = ["schemathesis", "--config-file", folder / "schemathesis.toml", "run", f"{seen.url}/openapi.json"]
    command += ["--seed", effort.seed, "--max-examples", effort.examples, "--phases", effort.phases]
    command += ["--report", "json", "--report-json-path", report, "--no-color"]
    if seen.token:
        command += ["--header", f"Authorization: Bearer {seen.token}"]
    environment = {
        **os.environ,
        "EVENTICKET_API_HOOKS": str(FOLDER / "hooks.py"),
        "EVENTICKET_API_STATUSES": str(folder / "statuses.json"),
    }
    run = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True)
    if not report.exists():
        raise Found(f"schemathesis did not run:\n{run.stdout}{run.stderr}")
    told = json.loads(report.read_text())
    cases, operations = told["test_cases"], told["operations"]
    figures = (
        f"{cases['generated']} cases of {operations['tested']} operations, seed {effort.seed}, "
        f"{cases['unique_failures']} failures; answers {statuses(folder)}"
    )
    if run.returncode != 0 or not told["complete"] or cases["errored"]:
        raise Found(f"{figures}\n{run.stdout}{run.stderr}")
    if cases["generated"] < effort.least:
        raise Found(f"{figures}: {effort.least} cases were asked for")
    return figures


def statuses(folder: Path) -> str:
    """How often each class of status was answered, as the hooks counted."""
    counted = json.loads((folder / "statuses.json").read_text())
    return ", ".join(f"{number} {kind}xx" for kind, number in sorted(counted.items()))
