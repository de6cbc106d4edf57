"""Known vulnerabilities and licences of all that the jobs bring along: locked packages, and Spark's jars.

`python -m tools.audit` asks the OSV database (https://osv.dev) by pip-audit for the packages of requirements/*.lock,
and itself for the jars, of which pip-audit knows nothing. What is found and not accepted in requirements/audit.toml,
with the reason, is exit 1. Where the database cannot be reached nothing was checked, and that is exit 1 too.
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
    """What a jar is in Maven's terms; where it does not say, the group is empty."""

    group: str
    artifact: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact} {self.version}"


def jars(groups: Mapping[str, str]) -> set[Jar]:
    """The jars that pyspark ships, and those that spark.jars.packages of any settings has brought.

    `groups` are those of artifacts that do not say it themselves, without the version of Scala at the end.
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
        sys.exit(f"audit: {len(missing)} packages of Spark are not here: run `make setup-dev` first")
    return fetched | {jar for path in shipped.glob("*.jar") for jar in inside(path, groups)}


def fetched_jars() -> set[Jar]:
    """The jars that Ivy has fetched for the settings of these jobs, by the lists that set-up has left."""
    lists = [Path(sys.prefix) / f"jars-{conf.parent.name}.txt" for conf in CONF.glob("*/spark-defaults.conf")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in lists if path.exists())
    return {jar for line in text.splitlines() if (jar := from_ivy(posixpath.basename(line)))}


def from_ivy(name: str) -> Jar | None:
    """A jar as Ivy names it: GROUP_ARTIFACT-VERSION.jar."""
    found = FROM_IVY.fullmatch(name)
    return Jar(found["group"], found["artifact"], found["version"]) if found else None


def inside(path: Path, groups: Mapping[str, str]) -> Iterator[Jar]:
    """All that a jar holds: several where others are packed into it, by what Maven has left there; else its name."""
    with zipfile.ZipFile(path) as opened:
        found = [name for name in opened.namelist() if PROPERTIES.fullmatch(name)]
        for name in found:
            facts = dict(line.split("=", 1) for line in opened.read(name).decode("latin-1").splitlines() if "=" in line)
            yield Jar(facts["groupId"].strip(), facts["artifactId"].strip(), facts["version"].strip())
    named = BY_NAME.fullmatch(path.stem)
    if not found and named:
        yield Jar(groups.get(SCALA.sub("", named["artifact"]), ""), named["artifact"], named["version"])


def vulnerabilities(all_jars: Iterable[Jar], url: str) -> dict[str, list[Jar]]:
    """The ids of known vulnerabilities, and the jars that have them."""
    known = sorted(jar for jar in all_jars if jar.group)
    found: dict[str, list[Jar]] = {}
    for start in range(0, len(known), BATCH):
        batch = known[start : start + BATCH]
        queries = [
            {"package": {"ecosystem": "Maven", "name": f"{jar.group}:{jar.artifact}"}, "version": jar.version}
            for jar in batch
        ]
        answer = requests.post(f"{url}/v1/querybatch", json={"queries": queries}, timeout=TIMEOUT)
        answer.raise_for_status()
        for jar, result in zip(batch, answer.json()["results"], strict=True):
            for entry in result.get("vulns", []):
                found.setdefault(entry["id"], []).append(jar)
    return found


def audit_packages(accepted: Iterable[str], url: str) -> bool:
    """Let pip-audit look at every locked package; whether all is well."""
    ignored = [word for entry in accepted for word in ("--ignore-vuln", entry)]
    service = ["--vulnerability-service", "osv", "--osv-url", f"{url}/v1/query"]
    options = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off", *service]
    command = [sys.executable, "-m", "pip_audit", *options, *ignored, "-r"]
    locks = [ROOT / "requirements" / f"{lock}.lock" for lock in LOCKS]
    return not [lock for lock in locks if subprocess.run([*command, lock], check=False).returncode]  # noqa: S603


def unlicensed(groups: Iterable[str], licences: dict[str, str]) -> set[str]:
    """The groups of fetched jars whose licence nobody has looked up."""
    return {group for group in groups if not any(group == known or group.startswith(f"{known}.") for known in licences)}


def audit_licences(allowed: list[str]) -> bool:
    """Let pip-licenses hold what the jobs need against the licences that are allowed; whether all is well."""
    lock = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    names = re.findall(r"^([a-z0-9._-]+)==", lock, flags=re.MULTILINE)
    options = ["--from", "mixed", "--partial-match", "--allow-only", ";".join(allowed), "--packages", *names]
    command = [sys.executable, "-m", "piplicenses", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.stdout.write(done.stderr)
    return done.returncode == 0


def main() -> int:
    """Look at everything, and say what is wrong."""
    rules: dict[str, Any] = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    accepted: dict[str, str] = rules["accepted"]
    url = os.environ.get("OSV_URL", OSV)
    all_jars = jars(rules["jar_groups"])
    say = sys.stdout.write
    unknown = sorted(jar.artifact for jar in all_jars if not jar.group)
    for artifact in unknown:
        say(f"audit: {artifact} does not say what it is: add its group to {ALLOWED.name}\n")
    groups = unlicensed({jar.group for jar in fetched_jars()}, rules["jar_licences"])
    for group in sorted(groups):
        say(f"audit: the licence of jars of {group} is not in {ALLOWED.name}\n")
    is_licensed = audit_licences(rules["package_licences"]) and not groups
    try:
        found = vulnerabilities(all_jars, url)
    except requests.RequestException as error:
        say(f"audit: {url} cannot be reached, so no vulnerability was looked up ({type(error).__name__})\n")
        return 1
    new = {entry: where for entry, where in found.items() if entry not in accepted}
    for entry, where in sorted(new.items()):
        say(f"audit: {entry} in {', '.join(map(str, where))}\n")
    for entry in sorted(found.keys() & accepted.keys()):
        say(f"audit: {entry} is accepted: {accepted[entry]}\n")
    are_packages_well = audit_packages(accepted, url)
    is_well = is_licensed and are_packages_well and not new and not unknown
    say(f"audit: {len(all_jars)} jars and {len(LOCKS)} locks looked up: {'all is well' if is_well else 'see above'}\n")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
