"""What a set of any size would take, worked out from what the measured one took, and what that one costs on AWS.

`python -m benchmarks.plan` writes benchmarks/results/plan.md and aws.md, from `Measured`, the seconds of
`make bench SCALE=25m`, and `Assumed`. Work is split by what it grows with: ratings and users, for our solver ratings x
rank, and for MLlib, which fits where factors are too large to be broadcast, ratings x rank^2 and rows of factors x
rank^3 (it adds a rank-one matrix for each rating on each side of a sweep, and solves a system by Cholesky for each user
and movie).
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
    """How much there is of what work grows with."""

    ratings: float
    users: float
    movies: float


@dataclass(frozen=True)
class Measured:
    """Seconds of one run on `cores` cores, over all of its data: stages of the pipeline, MLlib's fits apart."""

    cores: int = 2
    size: Size = Size(24.9e6, 162_541, 62_423)
    pack: float = 24
    """The packed ratings of one fit, which all its models share."""
    own_64: float = 8.5
    own_128: float = 13.5
    """One sweep of our solver with so many factors."""
    mllib_set_up: float = 50
    """Blocks of one of MLlib's fits."""
    mllib_32: float = 18.1
    mllib_64: float = 54.2
    """One sweep of MLlib's ALS with so many factors."""
    etl: float = 84.5
    explore: float = 37.9
    judge: float = 75
    """Lists, metrics and errors of the users judged, `judged` of them: from the log of the pipeline."""
    judged: float = 162_541
    biases: float = 23
    """One fit."""
    recommend: float = 56.7
    """Lists with reasons and predicted ratings, the table and the parts of the CSV."""


@dataclass(frozen=True)
class Assumed:
    """What was not measured: list prices of us-east-1 in November 2026, rates of one executor, and choices."""

    sweeps: int = 10
    fits: int = 2
    """On the training part, and again on everything; our solver goes on from the first fit in the second."""
    further_sweeps: int = 3
    own_ranks: tuple[int, int] = (64, 128)
    mllib_ranks: tuple[int, int] = (32, 64)
    """Ranks of explicit and implicit ALS."""
    broadcast: float = 1
    """GB of factors that are broadcast at most."""
    block_ratings: float = 2e6
    judged_users: float = 200_000
    executors: int = 40
    cores: int = 4
    heap: float = 12
    memory: float = 16
    """GB of an executor: of its heap, and with what Python needs."""
    disk: float = 200
    busy: float = 0.7
    """Share of the time that cores work: the last task of a stage has no company."""
    shuffle: float = 10
    """Core seconds to write, move and read a GB."""
    row: float = 450
    """Bytes of a recommendation in the two shuffles that find its user's and its movie's factors."""
    csv_row: float = 110
    csv_rate: float = 0.2
    """GB a second through the driver into one object."""
    n: int = 10
    vcpu_price: float = 0.052624
    memory_price: float = 0.0057785
    disk_price: float = 0.000111
    """Dollars an hour, for a vCPU and for a GB (of disk: of each above the first 20)."""


@dataclass(frozen=True)
class Service:
    """A service of AWS as conf/aws sets it up by default."""

    name: str
    workers: int
    """All that are paid for, of `Assumed.cores` cores each."""
    executors: int
    price: float
    """Dollars an hour, for one of them."""
    start: float
    """Minutes that are paid for before the work begins, where packages are installed and machines made."""
    further: float = 0
    """Dollars for what is paid besides."""


def services(assumed: Assumed) -> list[Service]:
    """By list prices of us-east-1: $0.44 for a DPU and hour of Glue, $0.252 + $0.063 for an r5.xlarge of EMR."""
    glue, machine = 0.44, 0.252 + 0.063
    crawl = 2 * glue * 10 / MINUTE  # two DPUs, for the ten minutes that are the least
    serverless = assumed.cores * assumed.vcpu_price + 23 * assumed.memory_price
    return [
        Service("Glue, `pipeline`: 4 workers G.1X", 4, 3, glue, 2),
        Service("Glue, the workflow: 7 jobs, each with a start, and a crawl", 4, 3, glue, 7 * 2, crawl),
        Service("EMR Serverless, `pipeline`: a driver and 3 executors of 4 vCPU and 23 GB", 4, 3, serverless, 2),
        Service("EMR, `pipeline`: 5 machines r5.xlarge, made for the run", 5, 3, machine, 8),
    ]


def costs(measured: Measured, assumed: Assumed) -> str:
    """What the measured run takes and costs on AWS, as Markdown."""
    work = sum(core_seconds(measured.size, measured, assumed).values())
    rows = []
    for service in services(assumed):
        minutes = service.start + work / (service.executors * assumed.cores) / assumed.busy / MINUTE
        dollars = service.workers * service.price * minutes / MINUTE + service.further
        rows.append(f"| {service.name} | {service.start:.0f} | {minutes:.0f} | {dollars:.2f} |")
    return "\n".join(
        [
            f"{measured.size.ratings:,.0f} ratings, from raw files to published lists: {work / HOUR:.2f} core hours, "
            f"as measured on {measured.cores} cores; cores are busy for {assumed.busy:.0%} of the time.",
            "Not tried on AWS.",
            "",
            "| | minutes until the work begins | minutes | US dollars |",
            "|---|--:|--:|--:|",
            *rows,
            "",
        ]
    )


def flops(size: Size, rank: int) -> float:
    """Of one sweep of MLlib's ALS."""
    return 2 * size.ratings * rank**2 + (size.users + size.movies) * rank**3 / 3


def moved(size: Size, rank: int, assumed: Assumed) -> float:
    """GB of factors that a sweep of MLlib's shuffles: each goes to all blocks of the other side with a rating of it."""
    blocks = max(size.ratings / assumed.block_ratings, 4)
    sent = sum(min(size.ratings, rows * blocks) for rows in (size.users, size.movies))
    return sent * rank * FLOAT / GB


def core_seconds(size: Size, measured: Measured, assumed: Assumed) -> dict[str, float]:
    """Of each part of the pipeline."""
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
    """Whether the factors of both sides are small enough for our solver."""
    return (size.users + size.movies) * max(assumed.own_ranks) * FLOAT / GB <= assumed.broadcast


def _own_fits(size: Size, measured: Measured, assumed: Assumed) -> dict[str, float]:
    """By our solver: its time grows with ratings x rank."""
    sweeps = assumed.sweeps + (assumed.fits - 1) * assumed.further_sweeps
    a_column = (measured.own_128 - measured.own_64) / 64
    found = {}
    for kind, rank in zip(KINDS, assumed.own_ranks, strict=True):
        sweep = measured.own_64 + a_column * (rank - 64)
        found[f"{kind} ALS, rank {rank}"] = sweeps * sweep * measured.cores * size.ratings / measured.size.ratings
    return found


def _mllib_fits(size: Size, measured: Measured, assumed: Assumed) -> dict[str, float]:
    """By MLlib, which starts anew each time, and shuffles factors."""
    sweeps, cores = assumed.fits * assumed.sweeps, measured.cores
    set_up = assumed.fits * measured.mllib_set_up * cores * size.ratings / measured.size.ratings
    found = {}
    for kind, rank, sweep in zip(KINDS, assumed.mllib_ranks, (measured.mllib_32, measured.mllib_64), strict=True):
        compute = sweeps * sweep * cores * flops(size, rank) / flops(measured.size, rank)
        further = max(moved(size, rank, assumed) - moved(measured.size, rank, assumed), 0)
        found[f"{kind} ALS by MLlib, rank {rank}"] = compute + set_up + sweeps * further * assumed.shuffle
    return found


def held(size: Size) -> dict[str, float]:
    """GB that executors hold during MLlib's larger fit: what does not fit in memory goes to their disks."""
    return {
        "ratings cached: all, training and holdout, and in ALS's order": size.ratings * (24 + 12) / GB,
        "ratings packed, by user and by movie": size.ratings * 2 * 8 / GB,
        "ratings in ALS's blocks, by user and by movie": size.ratings * 2 * 12 / GB,
        "user factors, before and after a half sweep": 2 * size.users * (64 * FLOAT + 24) / GB,
        "movie factors": 2 * size.movies * (64 * FLOAT + 24) / GB,
    }


def plan(size: Size, measured: Measured, assumed: Assumed) -> str:
    """The plan as Markdown."""
    seconds = core_seconds(size, measured, assumed)
    cores = assumed.executors * assumed.cores
    csv = size.users * assumed.n * assumed.csv_row / GB
    csv_hours = csv / assumed.csv_rate / HOUR
    hours = {part: value / cores / assumed.busy / HOUR for part, value in seconds.items()}
    total = sum(hours.values()) + csv_hours
    workers = assumed.executors + 1
    price = assumed.cores * assumed.vcpu_price + assumed.memory * assumed.memory_price
    price += (assumed.disk - 20) * assumed.disk_price
    memory = held(size)
    return "\n".join(
        [
            f"{size.ratings:,.0f} ratings, {size.users:,.0f} users, {size.movies:,.0f} movies, "
            f"{assumed.sweeps} sweeps, fitted {assumed.fits} times; {assumed.executors} executors of {assumed.cores} "
            f"cores and {assumed.memory:g} GB.",
            "",
            "| part | core hours | hours |",
            "|---|--:|--:|",
            *(f"| {part} | {value / HOUR:,.1f} | {hours[part]:.2f} |" for part, value in seconds.items()),
            f"| one CSV of {csv:,.0f} GB, through the driver | - | {csv_hours:.2f} |",
            f"| **all** | {sum(seconds.values()) / HOUR:,.0f} | **{total:.1f}** |",
            "",
            f"**${workers * price * total:,.0f}** on EMR Serverless ({workers} workers with the driver, "
            f"${price:.3f} an hour each).",
            "",
            "| what executors hold | GB |",
            "|---|--:|",
            *(f"| {what} | {value:,.1f} |" for what, value in memory.items()),
            f"| **all** | **{sum(memory.values()):,.0f}** |",
            f"| beside heaps of | {assumed.executors * assumed.heap:,.0f} |",
            f"| factors shuffled in one sweep, rank 64, to their disks | {moved(size, 64, assumed):,.0f} |",
            "",
        ]
    )


BILLION = Size(1e9, 100e6, 100_000)

if __name__ == "__main__":
    TARGET.write_text(plan(BILLION, Measured(), Assumed()))
    AWS_TARGET.write_text(costs(Measured(), Assumed()))
