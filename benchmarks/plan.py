"""Estimates of the time and cost of a data set of any size, and of the measured run on AWS.

`python -m benchmarks.plan` writes benchmarks/results/plan.md and aws.md, from `Measured` (the seconds of
`make bench SCALE=25m`) and `Assumed`. Each part of the work scales with what it grows with. Most parts grow with the
ratings or the users. Our solver grows with ratings x rank. MLlib, which fits where factors are too large to broadcast,
grows with ratings x rank^2 and with rows of factors x rank^3: on each side of a sweep it adds a rank-one matrix for
each rating, and solves a system by Cholesky for each user and movie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
TARGET, AWS_TARGET = RESULTS / "plan.md", RESULTS / "aws.md"
GB = 1e9
FLOAT = 4
HOUR, MINUTE = 3600, 60
KINDS = ("explicit", "implicit")


@dataclass(frozen=True)
class Size:
    """The size of a data set: what the work grows with."""

    ratings: float
    users: float
    movies: float


@dataclass(frozen=True)
class Measured:
    """Seconds of one run on `cores` cores, over all of its data: the stages of the pipeline, and MLlib's fits."""

    cores: int = 2
    size: Size = Size(24.9e6, 162_541, 62_423)
    pack: float = 24
    """Packing the ratings of one fit, which all its models share."""
    own_64: float = 8.5
    own_128: float = 13.5
    """One sweep of our solver at rank 64, and at rank 128."""
    mllib_set_up: float = 50
    """Building the rating blocks of one MLlib fit."""
    mllib_32: float = 18.1
    mllib_64: float = 54.2
    """One sweep of MLlib's ALS at rank 32, and at rank 64."""
    etl: float = 84.5
    explore: float = 37.9
    judge: float = 75
    """Lists, metrics and errors of the judged users, from the log of the pipeline."""
    judged: float = 162_541
    """The number of judged users."""
    biases: float = 23
    """One fit of the biases."""
    recommend: float = 56.7
    """Lists with reasons and predicted ratings, written as a table and as the parts of the CSV."""


@dataclass(frozen=True)
class Assumed:
    """What is not measured: list prices of us-east-1 in November 2026, rates of one executor, and choices."""

    sweeps: int = 10
    fits: int = 2
    """One on the training part and one on everything; the second fit of our solver starts from the first."""
    further_sweeps: int = 3
    """Sweeps of our solver's second fit."""
    own_ranks: tuple[int, int] = (64, 128)
    mllib_ranks: tuple[int, int] = (32, 64)
    """Ranks of explicit and implicit ALS."""
    broadcast: float = 1
    """The largest size of the factors, in GB, at which they are broadcast and our solver fits."""
    block_ratings: float = 2e6
    """Ratings per block of MLlib."""
    judged_users: float = 200_000
    executors: int = 40
    cores: int = 4
    heap: float = 12
    memory: float = 16
    """GB of an executor: its heap, and its whole memory, with what Python needs."""
    disk: float = 200
    """GB of an executor's disk."""
    busy: float = 0.7
    """The share of the time that cores work; at the end of a stage most cores wait for its last task."""
    shuffle: float = 10
    """Core seconds to write, move and read a GB."""
    row: float = 450
    """Bytes of a recommendation in the two shuffles that find its user's and its movie's factors."""
    csv_row: float = 110
    """Bytes of a row of the CSV."""
    csv_rate: float = 0.2
    """GB per second through the driver into one object."""
    n: int = 10
    """Recommendations per user."""
    vcpu_price: float = 0.052624
    memory_price: float = 0.0057785
    disk_price: float = 0.000111
    """Dollars per hour, for a vCPU, for a GB of memory, and for each GB of disk above the first 20."""


@dataclass(frozen=True)
class Service:
    """A service of AWS as conf/aws sets it up by default."""

    name: str
    workers: int
    """The workers that are paid for, of `Assumed.cores` cores each."""
    executors: int
    price: float
    """Dollars per hour and worker."""
    start: float
    """Minutes paid for before the work begins, while machines start and packages are installed."""
    extra: float = 0
    """Dollars for anything else, per run."""


def services(assumed: Assumed) -> list[Service]:
    """The services, at list prices of us-east-1.

    Glue costs $0.44 per DPU and hour; an r5.xlarge costs $0.252, and $0.063 more for EMR, per hour.
    """
    glue, machine = 0.44, 0.252 + 0.063
    crawl = 2 * glue * 10 / MINUTE  # two DPUs for ten minutes, the shortest time that is billed
    serverless = assumed.cores * assumed.vcpu_price + 23 * assumed.memory_price
    return [
        Service("Glue, `pipeline`: 4 workers G.1X", 4, 3, glue, 2),
        Service("Glue, the workflow: 7 jobs, each started on its own, and a crawl", 4, 3, glue, 7 * 2, crawl),
        Service("EMR Serverless, `pipeline`: a driver and 3 executors of 4 vCPU and 23 GB", 4, 3, serverless, 2),
        Service("EMR, `pipeline`: 5 machines r5.xlarge, started for the run", 5, 3, machine, 8),
    ]


def costs(measured: Measured, assumed: Assumed) -> str:
    """The time and cost of the measured run on each AWS service, as Markdown."""
    work = sum(core_seconds(measured.size, measured, assumed).values())
    rows = []
    for service in services(assumed):
        minutes = service.start + work / (service.executors * assumed.cores) / assumed.busy / MINUTE
        dollars = service.workers * service.price * minutes / MINUTE + service.extra
        rows.append(f"| {service.name} | {service.start:.0f} | {minutes:.0f} | {dollars:.2f} |")
    return "\n".join(
        [
            f"{measured.size.ratings:,.0f} ratings, from raw files to published lists: {work / HOUR:.2f} core hours, "
            f"as measured on {measured.cores} cores. Cores are assumed to be busy {assumed.busy:.0%} of the time.",
            "These are estimates: nothing was run on AWS.",
            "",
            "| | minutes until the work begins | minutes in all | US dollars |",
            "|---|--:|--:|--:|",
            *rows,
            "",
        ]
    )


def flops(size: Size, rank: int) -> float:
    """Floating-point operations of one sweep of MLlib's ALS."""
    return 2 * size.ratings * rank**2 + (size.users + size.movies) * rank**3 / 3


def shuffled_gb(size: Size, rank: int, assumed: Assumed) -> float:
    """GB of factors that one sweep of MLlib's ALS shuffles.

    A row of factors goes to each block of the other side that has a rating of it.
    """
    blocks = max(size.ratings / assumed.block_ratings, 4)
    sent = sum(min(size.ratings, rows * blocks) for rows in (size.users, size.movies))
    return sent * rank * FLOAT / GB


def core_seconds(size: Size, measured: Measured, assumed: Assumed) -> dict[str, float]:
    """Core seconds of each part of the pipeline."""
    ratings, users = size.ratings / measured.size.ratings, size.users / measured.size.users
    movies = size.movies / measured.size.movies
    fits, cores = assumed.fits, measured.cores

    judged = min(assumed.judged_users, size.users) / measured.judged
    return {
        "etl": measured.etl * cores * ratings,
        "explore": measured.explore * cores * ratings,
        "biases": fits * measured.biases * cores * ratings,
        "packing": fits * measured.pack * cores * ratings,
        **(_own_fits if is_broadcast(size, assumed) else _mllib_fits)(size, measured, assumed),
        "judging": measured.judge * cores * judged * movies,
        "recommend": measured.recommend * cores * users * max(movies, 1),
        "predicted ratings, joined to their factors": size.users * assumed.n * assumed.row / GB * assumed.shuffle,
    }


def is_broadcast(size: Size, assumed: Assumed) -> bool:
    """Whether the factors of both sides are small enough to broadcast, as our solver needs."""
    return (size.users + size.movies) * max(assumed.own_ranks) * FLOAT / GB <= assumed.broadcast


def _own_fits(size: Size, measured: Measured, assumed: Assumed) -> dict[str, float]:
    """Core seconds of the fits by our solver, whose time grows with ratings x rank."""
    sweeps = assumed.sweeps + (assumed.fits - 1) * assumed.further_sweeps
    per_factor = (measured.own_128 - measured.own_64) / 64
    seconds = {}
    for kind, rank in zip(KINDS, assumed.own_ranks, strict=True):
        sweep = measured.own_64 + per_factor * (rank - 64)
        seconds[f"{kind} ALS, rank {rank}"] = sweeps * sweep * measured.cores * size.ratings / measured.size.ratings
    return seconds


def _mllib_fits(size: Size, measured: Measured, assumed: Assumed) -> dict[str, float]:
    """Core seconds of the fits by MLlib, which starts each fit afresh and shuffles factors."""
    sweeps, cores = assumed.fits * assumed.sweeps, measured.cores
    set_up = assumed.fits * measured.mllib_set_up * cores * size.ratings / measured.size.ratings
    seconds = {}
    for kind, rank, sweep in zip(KINDS, assumed.mllib_ranks, (measured.mllib_32, measured.mllib_64), strict=True):
        compute = sweeps * sweep * cores * flops(size, rank) / flops(measured.size, rank)
        more_gb = max(shuffled_gb(size, rank, assumed) - shuffled_gb(measured.size, rank, assumed), 0)
        seconds[f"{kind} ALS by MLlib, rank {rank}"] = compute + set_up + sweeps * more_gb * assumed.shuffle
    return seconds


def executor_gb(size: Size) -> dict[str, float]:
    """GB that all executors together hold during MLlib's larger fit; what does not fit in memory goes to disk."""
    return {
        "ratings cached: all, training and holdout, and in ALS's order": size.ratings * (24 + 12) / GB,
        "ratings packed, by user and by movie": size.ratings * 2 * 8 / GB,
        "ratings in ALS's blocks, by user and by movie": size.ratings * 2 * 12 / GB,
        "user factors, before and after a half sweep": 2 * size.users * (64 * FLOAT + 24) / GB,
        "movie factors": 2 * size.movies * (64 * FLOAT + 24) / GB,
    }


def plan(size: Size, measured: Measured, assumed: Assumed) -> str:
    """The time, cost and memory of a data set of this size, as Markdown."""
    seconds = core_seconds(size, measured, assumed)
    cores = assumed.executors * assumed.cores
    csv = size.users * assumed.n * assumed.csv_row / GB
    csv_hours = csv / assumed.csv_rate / HOUR
    hours = {part: value / cores / assumed.busy / HOUR for part, value in seconds.items()}
    total = sum(hours.values()) + csv_hours
    workers = assumed.executors + 1
    price = assumed.cores * assumed.vcpu_price + assumed.memory * assumed.memory_price
    price += (assumed.disk - 20) * assumed.disk_price
    memory = executor_gb(size)
    return "\n".join(
        [
            f"{size.ratings:,.0f} ratings, {size.users:,.0f} users, {size.movies:,.0f} movies, "
            f"{assumed.sweeps} sweeps, {assumed.fits} fits; {assumed.executors} executors of {assumed.cores} "
            f"cores and {assumed.memory:g} GB. An estimate, not a measurement.",
            "",
            "| part | core hours | hours |",
            "|---|--:|--:|",
            *(f"| {part} | {value / HOUR:,.1f} | {hours[part]:.2f} |" for part, value in seconds.items()),
            f"| one CSV of {csv:,.0f} GB, through the driver | - | {csv_hours:.2f} |",
            f"| **all** | {sum(seconds.values()) / HOUR:,.0f} | **{total:.1f}** |",
            "",
            f"**${workers * price * total:,.0f}** on EMR Serverless ({workers} workers including the driver, "
            f"${price:.3f} per hour each).",
            "",
            "| held by all executors | GB |",
            "|---|--:|",
            *(f"| {part} | {value:,.1f} |" for part, value in memory.items()),
            f"| **all** | **{sum(memory.values()):,.0f}** |",
            f"| total heap of the executors | {assumed.executors * assumed.heap:,.0f} |",
            f"| factors shuffled through their disks in one sweep, rank 64 | {shuffled_gb(size, 64, assumed):,.0f} |",
            "",
        ]
    )


BILLION = Size(1e9, 100e6, 100_000)

if __name__ == "__main__":
    TARGET.write_text(plan(BILLION, Measured(), Assumed()))
    AWS_TARGET.write_text(costs(Measured(), Assumed()))
