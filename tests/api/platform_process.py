"""A platform on an empty folder and a free port, started and stopped here."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import requests

PASSWORD = "demo-password"
# Seconds until `ready`, and until the end after Ctrl-C.
READY = 180
STOPPED = 60
# Thousands of requests of one customer and one address are what is wanted here; other tests look at the limits. Tokens
# hold as long as the longest run.
SETTINGS = {
    "EVENTICKET_RATE_SIGNED_IN": "100000",
    "EVENTICKET_RATE_SIGNED_IN_BURST": "100000",
    "EVENTICKET_RATE_ADDRESS": "100000",
    "EVENTICKET_RATE_ADDRESS_BURST": "100000",
    "EVENTICKET_ACCESS_TOKEN_SECONDS": "86400",
}


class Platform:
    """Runs as long as its `with` block."""

    def __init__(self, binary: Path, work: Path):
        self.binary = binary.resolve()
        self.home = work / "platform"
        # What it prints to the terminal: warnings by the hundred, since that is what is provoked here.
        self.told = work / "up.log"
        self.url = ""

    def __enter__(self) -> "Platform":
        environment = {**os.environ, **SETTINGS, "EVENTICKET_HOME": str(self.home)}
        environment.pop("DATABASE_URL", None)
        environment.pop("NATS_URL", None)
        self.process = subprocess.Popen(
            [self.binary, "up", "--port", "0"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.told.open("w"),
            text=True,
            start_new_session=True,
        )
        # A platform that never gets ready is ended, and with it the lines below.
        patience = threading.Timer(READY, self.process.kill)
        patience.start()
        try:
            for line in self.process.stdout:
                if line.startswith("ready "):
                    self.url = line.split()[1]
                    return self
        except BaseException:
            self.stop()
            raise
        finally:
            patience.cancel()
        self.stop()
        self.tell()
        raise SystemExit("the platform ended before it was ready")

    def __exit__(self, kind, *_) -> None:
        self.stop()
        if kind is not None:
            self.tell()

    def stop(self) -> None:
        """Ctrl-C, and more than that where it does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=STOPPED)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def tell(self) -> None:
        """Shows the last that it told."""
        sys.stderr.write("".join(self.told.read_text().splitlines(keepends=True)[-40:]))

    def get(self, path: str, token: str = "") -> requests.Response:
        """What is there."""
        return self.ask("GET", path, token)

    def ask(self, method: str, path: str, token: str = "", body: object = None, **headers: str) -> requests.Response:
        """Asks, and raises where that fails."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = requests.request(method, self.url + path, headers=named, json=body, timeout=60)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def login(self, name: str) -> str:
        """An access token of a demo user."""
        credentials = {"email": f"{name}@demo.test", "password": PASSWORD}
        return self.ask("POST", "/v1/auth/login", body=credentials).json()["access_token"]

    def customer(self) -> str:
        """An access token of a customer beside the demo's."""
        environment = {**os.environ, "EVENTICKET_HOME": str(self.home)}
        made = subprocess.run([self.binary, "customers", "1"], env=environment, check=True, capture_output=True, text=True)
        return made.stdout.strip()
