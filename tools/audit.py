"""Check the locked packages and Spark's jars for known vulnerabilities and for their licences.

`python -m tools.audit` asks the OSV database (https://osv.dev): through pip-audit for the packages of
requirements/*.lock, and directly for the jars, which pip-audit does not check. requirements/audit.toml accepts single
vulnerabilities, each with a reason. The exit code is 1 for any other vulnerability, for a licence that audit.toml does
not allow, and where the database cannot be reached.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark
import requests

from tools.conf import CONF, ROOT

LOCKS = ("runtime", "runtime-3.5", "dev", "bench", "notebook", "s3", "java")
ALLOWED = ROOT / "requirements" / "audit.toml"
OSV = "https://api.osv.dev"
BATCH = 500
TIMEOUT = 60
PROPERTIES = re.compile(r"META-INF/maven/.+/pom\.properties")
BY_NAME = re.compile(r"(?P<artifact>.+?)-(?P<version>\d.*)")
SCALA = re.compile(r"_2\.\d+$")
FROM_IVY = re.compile(r"(?P<group>[a-zA-Z0-9.-]+)_(?P<artifact>[a-zA-Z0-9._-]+?)-(?P<version>\d[^/]*)\.jar")


@dataclass(frozen=True, order=True)
class Jar:
    """The Maven coordinates of a jar; `group` is empty where the jar does not state it."""

    group: str
    artifact: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact} {self.version}"


def jars(groups: Mapping[str, str]) -> set[Jar]:
    """The jars that pyspark ships, and the jars that Ivy fetched for the spark.jars.packages of all settings.

    `groups` maps artifacts that do not state their group, without the Scala version at the end, to their groups.
    """
    shipped = Path(pyspark.__file__).parent / "jars"
    wanted = {
        tuple(package.split(":")[:2])
        for conf in CONF.glob("*/spark-defaults.conf")
        for line in conf.read_text(encoding="utf-8").splitlines()
        if line.startswith("spark.jars.packages")
        for package in line.split()[1].split(",")
    }
    fetched = fetched_jars()
    if missing := wanted - {(jar.group, jar.artifact) for jar in fetched}:
        sys.exit(f"audit: {len(missing)} packages of Spark are not installed: run `make setup-dev` first")
    return fetched | {jar for path in shipped.glob("*.jar") for jar in inside(path, groups)}


def fetched_jars() -> set[Jar]:
    """The jars that Ivy fetched for the settings of these jobs, according to the lists that set-up wrote."""
    lists = [Path(sys.prefix) / f"jars-{conf.parent.name}.txt" for conf in CONF.glob("*/spark-defaults.conf")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in lists if path.exists())
    return {jar for line in text.splitlines() if (jar := from_ivy(posixpath.basename(line)))}


def from_ivy(name: str) -> Jar | None:
    """The jar that Ivy named GROUP_ARTIFACT-VERSION.jar; None for any other name."""
    match = FROM_IVY.fullmatch(name)
    return Jar(match["group"], match["artifact"], match["version"]) if match else None


def inside(path: Path, groups: Mapping[str, str]) -> Iterator[Jar]:
    """The jars in a jar file: itself, and others that are packed into it.

    They are known by the pom.properties files that Maven wrote; without such a file, by the name of the jar file.
    """
    with zipfile.ZipFile(path) as opened:
        properties = [name for name in opened.namelist() if PROPERTIES.fullmatch(name)]
        for name in properties:
            facts = dict(line.split("=", 1) for line in opened.read(name).decode("latin-1").splitlines() if "=" in line)
            yield Jar(facts["groupId"].strip(), facts["artifactId"].strip(), facts["version"].strip())
    match = BY_NAME.fullmatch(path.stem)
    if not properties and match:
        yield Jar(groups.get(SCALA.sub("", match["artifact"]), ""), match["artifact"], match["version"])


def vulnerabilities(all_jars: Iterable[Jar], url: str) -> dict[str, list[Jar]]:
    """The ids of known vulnerabilities, each with the jars that have it. `url` is the address of the OSV database."""
    with_group = sorted(jar for jar in all_jars if jar.group)
    vulnerable: dict[str, list[Jar]] = {}
    for start in range(0, len(with_group), BATCH):
        batch = with_group[start : start + BATCH]
        queries = [
            {"package": {"ecosystem": "Maven", "name": f"{jar.group}:{jar.artifact}"}, "version": jar.version}
            for jar in batch
        ]
        answer = requests.post(f"{url}/v1/querybatch", json={"queries": queries}, timeout=TIMEOUT)
        answer.raise_for_status()
        for jar, result in zip(batch, answer.json()["results"], strict=True):
            for entry in result.get("vulns", []):
                vulnerable.setdefault(entry["id"], []).append(jar)
    return vulnerable


def audit_packages(accepted: Iterable[str], url: str) -> bool:
    """Run pip-audit on every lock file; returns whether it finds nothing but the `accepted` ids."""
    ignored = [word for entry in accepted for word in ("--ignore-vuln", entry)]
    service = ["--vulnerability-service", "osv", "--osv-url", f"{url}/v1/query"]
    options = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off", *service]
    command = [sys.executable, "-m", "pip_audit", *options, *ignored, "-r"]
    locks = [ROOT / "requirements" / f"{lock}.lock" for lock in LOCKS]
    return not [lock for lock in locks if subprocess.run([*command, lock], check=False).returncode]  # noqa: S603


def unlicensed(groups: Iterable[str], licences: dict[str, str]) -> set[str]:
    """The groups of jars for which `licences`, a licence per group, has no entry."""
    return {group for group in groups if not any(group == known or group.startswith(f"{known}.") for known in licences)}


def audit_licences(allowed: list[str]) -> bool:
    """Run pip-licenses on the packages of the jobs; returns whether all their licences are `allowed`."""
    lock = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    names = re.findall(r"^([a-z0-9._-]+)==", lock, flags=re.MULTILINE)
    options = ["--from", "mixed", "--partial-match", "--allow-only", ";".join(allowed), "--packages", *names]
    command = [sys.executable, "-m", "piplicenses", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.stdout.write(done.stderr)
    return done.returncode == 0


def main() -> int:
    """Run all checks and print what is wrong; returns the exit code."""
    rules: dict[str, Any] = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    accepted: dict[str, str] = rules["accepted"]
    url = os.environ.get("OSV_URL", OSV)
    all_jars = jars(rules["jar_groups"])
    write = sys.stdout.write
    unknown = sorted(jar.artifact for jar in all_jars if not jar.group)
    for artifact in unknown:
        write(f"audit: the jar {artifact} does not state its group: add the group to {ALLOWED.name}\n")
    groups = unlicensed({jar.group for jar in fetched_jars()}, rules["jar_licences"])
    for group in sorted(groups):
        write(f"audit: {ALLOWED.name} has no licence for the jars of {group}: add it\n")
    is_licensed = audit_licences(rules["package_licences"]) and not groups
    try:
        vulnerable = vulnerabilities(all_jars, url)
    except requests.RequestException as error:
        write(f"audit: {url} cannot be reached, so no vulnerability was looked up ({type(error).__name__})\n")
        return 1
    new = {entry: affected for entry, affected in vulnerable.items() if entry not in accepted}
    for entry, affected in sorted(new.items()):
        write(f"audit: {entry} in {', '.join(map(str, affected))}\n")
    for entry in sorted(vulnerable.keys() & accepted.keys()):
        write(f"audit: {entry} is accepted: {accepted[entry]}\n")
    are_packages_safe = audit_packages(accepted, url)
    passes = is_licensed and are_packages_safe and not new and not unknown
    write(f"audit: checked {len(all_jars)} jars and {len(LOCKS)} locks: {'all is well' if passes else 'see above'}\n")
    return 0 if passes else 1


if __name__ == "__main__":
    sys.exit(main())
