"""A real S3 server, SeaweedFS, on this machine's loopback while a command runs.

`python tools/s3_server.py FOLDER BUCKET... -- COMMAND...` keeps the server's data in FOLDER, makes missing buckets, and
runs the command with AWS_ENDPOINT_URL and the server's own keys in the environment.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

HOST = "127.0.0.1"
START_SECONDS = 60
GRPC = 10_000
"""SeaweedFS opens a second port for each of its ports, with a number higher by `GRPC`."""

EVERYTHING = ("Admin", "Read", "Write", "List")
READING = ("Read", "List")


@dataclass(frozen=True)
class Keys:
    """An access key, and the actions that it allows."""

    actions: tuple[str, ...]
    access: str = field(default_factory=lambda: f"AK{secrets.token_hex(8).upper()}")
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30))


@dataclass
class S3Server:
    """One server; its data stays in `folder` after it stops."""

    folder: Path
    owner: Keys = field(default_factory=lambda: Keys(EVERYTHING))
    reader: Keys = field(default_factory=lambda: Keys(READING))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{HOST}:{self.port}"

    def environment(self, keys: Keys | None = None) -> dict[str, str]:
        """Variables by which a client finds this server, and ignores any AWS configuration of this machine."""
        chosen = keys or self.owner
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": chosen.access,
            "AWS_SECRET_ACCESS_KEY": chosen.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self) -> Any:
        """A boto3 client with the owner's keys."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.owner.access,
            aws_secret_access_key=self.owner.secret,
            region_name="us-east-1",
        )

    def start(self) -> None:
        """Start the server, on its earlier port if it had one, and wait until it answers."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": keys.access, "secretKey": keys.secret}],
                "actions": list(keys.actions),
            }
            for name, keys in (("owner", self.owner), ("reader", self.reader))
        ]
        config = self.folder / "keys.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": identities}))
        free = _free_ports(5)
        self.port = self.port or free[0]
        ports = dict(zip(("master", "volume", "filer", "admin"), free[1:], strict=True))
        options = {
            **{"dir": data, "ip": HOST, "ip.bind": HOST, "webdav": "false", "admin.ui": "false"},
            **{f"{part}.port": port for part, port in ports.items()},
            **{"s3.port": self.port, "s3.port.iceberg": 0, "s3.port.lance": 0},
            **{"s3.config": config, "s3.autoCreateBucket": "false"},
        }
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [weed, "mini", *(f"-{name}={value}" for name, value in options.items())],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def stop(self) -> None:
        """Kill the server; all data that it acknowledged is on the disk."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def make_bucket(self, name: str) -> None:
        """Make a bucket unless it exists."""
        try:
            self.client().create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        probe = f"probe-{secrets.token_hex(4)}"
        while True:
            try:
                self.make_bucket(probe)
                self.client().put_object(Bucket=probe, Key="probe", Body=b"1")  # works only once there is a volume
                self.client().delete_object(Bucket=probe, Key="probe")
                self.client().delete_bucket(Bucket=probe)
            except (BotoCoreError, ClientError):
                if time.monotonic() > deadline or self.process is None or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.2)
            else:
                return


def _free_ports(count: int) -> list[int]:
    """Free ports whose second ports are free as well."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 50_000)  # noqa: S311
        if _is_free(port) and _is_free(port + GRPC) and not {port, port + GRPC, port - GRPC} & set(ports):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
        return True


def main() -> int:
    """Run a command beside a server; returns the command's exit code."""
    folder, *words = sys.argv[1:]
    split = words.index("--")
    server = S3Server(Path(folder).resolve())
    server.start()
    try:
        for bucket in words[:split]:
            server.make_bucket(bucket)
        return subprocess.run(words[split + 1 :], env={**os.environ, **server.environment()}, check=False).returncode  # noqa: S603
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
