"""The commands that are measured beside the product's stages; each runs in a process of its own.

`python -m benchmarks.scale_peers COMMAND --raw RAW --processed ZONE --out FOLDER` writes FOLDER/result.json: `work`,
the seconds from when Python (and Spark) has started until the work is done, and figures of the command. Every command
uses as many cores as Spark.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scale_data import DELIVERIES
from benchmarks.scale_rules import (
    DAMPING,
    FIRST_SECOND,
    LAST_SECOND,
    MAX_ID,
    PLAIN_LINE,
    SCALE_MAX,
    SCALE_MIN,
    STEP,
    Judged,
    judge_all,
)
from spark_app.platform.settings import Settings
from spark_app.zones.processed import ProcessedZone

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.ml.recommendation import ALSModel
    from pyspark.sql import DataFrame, SparkSession
    from scipy import sparse

CORES = 2
MEMORY = "6GB"
SPARK_MEMORY = "6g"
"""The memory of DuckDB, and of the heap of peers that run on Spark: MLlib needs more than the jobs do."""
N = 10
SWEEPS = 10
EXPLICIT = {"rank": 32, "reg": 0.1}
IMPLICIT = {"rank": 64, "reg": 0.35, "alpha": 2.0, "neutral": 2.5}
"""What MLlib fits: the settings of the product when it fitted with MLlib. The other peers fit IMPLICIT too."""

VERSION_STEP = 16
"""A rating's version is its second times this, plus its half stars. The largest version of a pair is the one to keep:
the latest rating, and in the same second the highest."""


@dataclass(frozen=True)
class Places:
    """The folders that a command reads and writes."""

    raw: Path
    processed: Path
    out: Path

    @property
    def zone(self) -> ProcessedZone:
        """The processed zone, which `etl` and `train` filled."""
        return ProcessedZone(str(self.processed))

    @property
    def mllib_movies(self) -> Path:
        """The folder of the movie factors of MLlib's last fit."""
        return self.out.parent / "mllib-movies"


def etl_duckdb(places: Places) -> dict[str, Any]:
    """The work of `etl` in DuckDB; writes ratings.parquet, rejects.parquet and final.parquet.

    Returns the seconds of work, and the counts of rows and rejects.
    """
    import duckdb  # noqa: PLC0415

    started = time.monotonic()
    con = duckdb.connect(config={"threads": CORES, "memory_limit": MEMORY, "preserve_insertion_order": False})
    con.execute(f"""
        CREATE TABLE movies AS SELECT * FROM read_csv('{places.raw / "movies.csv"}', header = true, quote = '"',
            escape = '"', columns = {{'movieId': 'INT', 'title': 'VARCHAR', 'genres': 'VARCHAR'}});
        CREATE TABLE checked AS
        WITH lines AS (  -- in Latin-1 every byte is a character, so no line is lost
            SELECT line, filename FROM read_csv('{places.raw / DELIVERIES}', columns = {{'line': 'VARCHAR'}},
                header = false, auto_detect = false, delim = chr(1), quote = '', escape = '', encoding = 'latin-1',
                filename = true) WHERE line <> ''
        ), fields AS (
            SELECT *, CASE WHEN regexp_full_match(line, '{PLAIN_LINE}') THEN string_split(line, ',') END AS field
            FROM lines
        ), typed AS (
            SELECT line, filename, field[1]::BIGINT AS userId, field[2]::BIGINT AS movieId,
                field[3]::DOUBLE AS rating, field[4]::BIGINT AS second FROM fields
        ), judged AS (
            SELECT *, coalesce(
                userId BETWEEN 0 AND {MAX_ID} AND movieId IN (SELECT movieId FROM movies)
                AND rating BETWEEN {SCALE_MIN} AND {SCALE_MAX} AND rating % {STEP} = 0
                AND second BETWEEN {FIRST_SECOND} AND {LAST_SECOND}, false) AS is_good FROM typed
        )
        SELECT try_cast(userId AS INT) AS userId, try_cast(movieId AS INT) AS movieId,
            second * {VERSION_STEP} + (rating / {STEP})::INT AS version,
            CASE WHEN NOT is_good THEN filename END AS file, CASE WHEN NOT is_good THEN line END AS raw
        FROM judged""")
    odd = con.execute("SELECT file, raw FROM checked WHERE raw IS NOT NULL").fetchall()
    movies = {movie for (movie,) in con.execute("SELECT movieId FROM movies").fetchall()}
    judged = judge_all(((file, raw.encode("latin-1")) for file, raw in odd), movies)
    con.register("others", _versions(judged))
    con.register("rejects", _rejects(judged))
    con.execute(f"""
        CREATE TABLE good AS SELECT userId, movieId, version FROM checked WHERE raw IS NULL
            UNION ALL SELECT userId, movieId, version FROM others;
        CREATE TABLE ratings AS
            SELECT userId, movieId, version % {VERSION_STEP} * {STEP} AS rating,
                make_timestamp(version // {VERSION_STEP} * 1000000) AS timestamp
            FROM (SELECT userId, movieId, max(version) AS version FROM good GROUP BY userId, movieId);
        CREATE TABLE sums AS
            SELECT movieId, sum(rating) AS total, count(*) AS rating_count FROM ratings GROUP BY movieId;
        COPY ratings TO '{places.out / "ratings.parquet"}';
        COPY rejects TO '{places.out / "rejects.parquet"}';
        COPY (
            SELECT movieId, title, genres, total / rating_count AS average_rating,
                coalesce(rating_count, 0) AS rating_count,
                (coalesce(total, 0) + {DAMPING} * mean) / (coalesce(rating_count, 0) + {DAMPING}) AS damped_rating
            FROM movies LEFT JOIN sums USING (movieId), (SELECT sum(total) / sum(rating_count) AS mean FROM sums)
            ORDER BY movieId
        ) TO '{places.out / "final.parquet"}'""")
    (good, kept) = con.execute("SELECT (SELECT count(*) FROM good), (SELECT count(*) FROM ratings)").fetchall()[0]
    return {"work": time.monotonic() - started, **_accounts(good, kept, judged)}


def etl_polars(places: Places) -> dict[str, Any]:
    """The work of `etl` in Polars; writes and returns the same as `etl_duckdb`."""
    import polars as pl  # noqa: PLC0415

    started = time.monotonic()
    movies = pl.read_csv(places.raw / "movies.csv", schema_overrides={"movieId": pl.Int32})
    lines = pl.scan_csv(
        places.raw / DELIVERIES,
        has_header=False,
        schema={"line": pl.String},
        separator="\x01",
        quote_char=None,
        encoding="utf8-lossy",
        include_file_paths="file",
    ).filter(pl.col("line") != "")
    plain = pl.when(pl.col("line").str.contains(PLAIN_LINE)).then(pl.col("line"))
    names = ("userId", "movieId", "rating", "second")
    fields = plain.str.split_exact(",", len(names) - 1).struct.rename_fields(names)
    typed = (
        lines.with_columns(fields.alias("field"))
        .unnest("field")
        .with_columns(pl.col("userId", "movieId", "second").cast(pl.Int64), pl.col("rating").cast(pl.Float64))
    )
    is_good = (
        pl.col("userId").is_between(0, MAX_ID)
        & pl.col("movieId").is_in(movies["movieId"].cast(pl.Int64).implode())
        & pl.col("rating").is_between(SCALE_MIN, SCALE_MAX)
        & (pl.col("rating") % STEP == 0)
        & pl.col("second").is_between(FIRST_SECOND, LAST_SECOND)
    ).fill_null(value=False)
    checked = (
        typed.with_columns(is_good.alias("is_good"))
        .select(
            pl.col("userId", "movieId").cast(pl.Int32, strict=False),
            (pl.col("second") * VERSION_STEP + (pl.col("rating") / STEP).cast(pl.Int64)).alias("version"),
            pl.when(~pl.col("is_good")).then("file").alias("file"),
            pl.when(~pl.col("is_good")).then("line").alias("raw"),
        )
        .collect(engine="streaming")
    )
    # The reader replaces bytes that are not UTF-8 by this character, which no other line has.
    odd = checked.filter(pl.col("raw").is_not_null()).select("file", "raw").rows()
    as_bytes = ((file, raw.replace("\N{REPLACEMENT CHARACTER}", "\udcff")) for file, raw in odd)
    judged = judge_all(
        ((file, raw.encode(errors="surrogateescape")) for file, raw in as_bytes), set(movies["movieId"].to_list())
    )
    others = pl.DataFrame(pl.from_arrow(_versions(judged)))
    good = pl.concat([checked.filter(pl.col("raw").is_null()).select(others.columns), others])
    latest = good.lazy().group_by("userId", "movieId").agg(pl.col("version").max()).collect(engine="streaming")
    ratings = latest.select(
        "userId",
        "movieId",
        (pl.col("version") % VERSION_STEP * STEP).alias("rating"),
        pl.from_epoch(pl.col("version") // VERSION_STEP, time_unit="s").alias("timestamp"),
    )
    ratings.write_parquet(places.out / "ratings.parquet")
    pl.DataFrame(pl.from_arrow(_rejects(judged))).write_parquet(places.out / "rejects.parquet")
    sums = ratings.group_by("movieId").agg(pl.col("rating").sum().alias("total"), pl.len().alias("rating_count"))
    mean = sums.select(pl.col("total").sum() / pl.col("rating_count").sum()).item()
    total, count = pl.col("total").fill_null(0), pl.col("rating_count").fill_null(0)
    movies.join(sums, on="movieId", how="left").select(
        "movieId",
        "title",
        "genres",
        (pl.col("total") / pl.col("rating_count")).alias("average_rating"),
        count.alias("rating_count"),
        ((total + DAMPING * mean) / (count + DAMPING)).alias("damped_rating"),
    ).sort("movieId").write_parquet(places.out / "final.parquet")
    return {"work": time.monotonic() - started, **_accounts(len(good), len(ratings), judged)}


def _versions(judged: Judged) -> pa.Table:
    """The lines that turned out good, as a table of userId, movieId, version."""
    import pyarrow as pa  # noqa: PLC0415

    columns = list(zip(*judged.good, strict=True)) or [()] * 4
    versions = [
        second * VERSION_STEP + round(stars / STEP) for stars, second in zip(columns[2], columns[3], strict=True)
    ]
    schema = pa.schema([("userId", pa.int32()), ("movieId", pa.int32()), ("version", pa.int64())])
    return pa.table([columns[0], columns[1], versions], schema=schema)


def _rejects(judged: Judged) -> pa.Table:
    """The rejects as a table of file, raw, reason."""
    import pyarrow as pa  # noqa: PLC0415

    columns = list(zip(*judged.rejects, strict=True)) or [()] * 3
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in ("file", "raw", "reason")]))


def _accounts(good: int, kept: int, judged: Judged) -> dict[str, Any]:
    """The counts of rows and of rejects by reason, in the form of the manifest of `etl`.

    `good` counts the good rows, `kept` those left after the de-duplication.
    """
    rejected = len(judged.rejects)
    rows = {"in": good + rejected, "good": kept, "rejected": rejected, "superseded": good - kept}
    return {"rows": rows, "rejects": judged.reasons}


def fits_mllib(places: Places) -> dict[str, Any]:
    """The seconds of four MLlib fits: EXPLICIT and IMPLICIT, on the training part and on all ratings.

    Before the clock starts, the rows are cached in memory, in as many partitions and blocks as the size of a block in
    `train` gives. Reading, splitting, judging and saving do not count. All other options are MLlib's defaults, so it
    makes no checkpoints. The movie factors of the last fit are kept for `fits_ours`.
    """
    from pyspark.sql import functions as F  # noqa: PLC0415

    from spark_app.model.mllib import in_stable_order  # noqa: PLC0415
    from spark_app.model.rating_blocks import blocks_for  # noqa: PLC0415
    from spark_app.model.split import split  # noqa: PLC0415

    spark, settings = _session("fits"), Settings()
    ratings = places.zone.read(spark, "ratings")
    training, _ = split(ratings, settings.train)
    fits = {}
    for part, rows in (("training", training), ("all", ratings)):
        blocks = blocks_for(rows.count(), settings.train.block_ratings)
        known = in_stable_order(rows, blocks).persist()
        fits[f"explicit ALS, {part}"], _ = _fitted_by_mllib(known, EXPLICIT, blocks)
        preferences = known.withColumn("rating", F.col("rating") - IMPLICIT["neutral"])
        likers = preferences.filter("rating > 0").select("userId").distinct()
        liked = preferences.filter("rating > 0").select("movieId").distinct()
        preferences = preferences.join(F.broadcast(likers), on="userId", how="left_semi")
        preferences = preferences.join(F.broadcast(liked), on="movieId", how="left_semi").persist()
        fits[f"implicit ALS, {part}"], model = _fitted_by_mllib(preferences, IMPLICIT, blocks)
        preferences.unpersist(blocking=True)
        known.unpersist(blocking=True)
    model.itemFactors.write.mode("overwrite").parquet(str(places.mllib_movies))
    spark.stop()
    return {"work": sum(fits.values()), "fits": fits}


def _fitted_by_mllib(rows: DataFrame, options: dict[str, float], blocks: int) -> tuple[float, ALSModel]:
    """The seconds of a fit, and its model."""
    from pyspark.ml.recommendation import ALS  # noqa: PLC0415

    algorithm = ALS(
        rank=int(options["rank"]),
        regParam=options["reg"],
        maxIter=SWEEPS,
        userCol="userId",
        itemCol="movieId",
        seed=Settings().train.seed,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        implicitPrefs="alpha" in options,
        alpha=options.get("alpha", 1.0),
    )
    rows.count()
    started = time.monotonic()
    model = algorithm.fit(rows)
    return time.monotonic() - started, model


def fits_ours(places: Places) -> dict[str, Any]:
    """The seconds of our solver for IMPLICIT on all ratings, packing included, from rows cached in memory.

    It is timed for SWEEPS at IMPLICIT's rank, for SWEEPS at twice that rank, and until its objective is as low as at
    the end of MLlib's fit, whose movie factors `fits_mllib` kept.
    """
    from spark_app.model import solver  # noqa: PLC0415
    from spark_app.model.factors import collected  # noqa: PLC0415
    from spark_app.model.half_sweep import Preference, Problem, Ridge  # noqa: PLC0415
    from spark_app.model.rating_blocks import pack  # noqa: PLC0415

    spark = _session("fits")
    known = places.zone.read(spark, "ratings").select("userId", "movieId", "rating").persist()
    known.count()
    rank = int(IMPLICIT["rank"])
    problem = Problem(Preference(IMPLICIT["alpha"], IMPLICIT["neutral"]), Ridge(IMPLICIT["reg"]))
    started = time.monotonic()
    blocks = pack(known)
    packing = time.monotonic() - started
    fits, reached = {}, []
    for columns in (rank, 2 * rank):
        started = time.monotonic()
        clock = _Clock()
        solver.fit(blocks, problem, solver.Options(columns, SWEEPS, Settings().train.seed), on_half_sweep=clock)
        fits[f"rank {columns}, {SWEEPS} sweeps"] = packing + time.monotonic() - started
        reached.append(clock.objectives)
    movies = collected(spark.read.parquet(str(places.mllib_movies)), rank)
    target = solver.objective_with(blocks, problem, movies.ids, movies.rows)
    low_enough = [(sweep, at) for sweep, (at, objective) in enumerate(reached[0], 1) if objective <= target]
    spark.stop()
    work = sum(fits.values()) - packing
    if low_enough:
        sweep, seconds = low_enough[0]
        fits[f"rank {rank}, until MLlib's objective: {sweep} sweeps"] = packing + seconds
    fits["packing alone"] = packing
    return {"work": work, "fits": fits, "objective_of_mllib": target, "objective": reached[0][-1][1]}


class _Clock:
    """Records (seconds, objective) at the end of each sweep."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.objectives: list[tuple[float, float]] = []

    def __call__(self, half_sweeps: int, objective: float | None) -> None:  # noqa: ARG002
        if objective is not None:
            self.objectives.append((time.monotonic() - self.started, objective))


def fit_implicit(places: Places) -> dict[str, Any]:
    """The seconds of `implicit`'s ALS on the preferences of all ratings, to compare with the last of MLlib's fits.

    Rank, sweeps and weights are those of MLlib. It takes three steps of conjugate gradient where MLlib solves exactly.
    Its regularisation does not grow with a user's ratings, which does not affect the time.
    """
    matrix, _, _ = _preferences(places.zone)
    started = time.monotonic()
    _implicit_als(int(IMPLICIT["rank"])).fit(matrix, show_progress=False)
    return {"work": time.monotonic() - started}


def _implicit_als(rank: int) -> Any:
    from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415

    return AlternatingLeastSquares(
        factors=rank,
        regularization=IMPLICIT["reg"],
        alpha=IMPLICIT["alpha"],
        iterations=SWEEPS,
        num_threads=CORES,
        random_state=Settings().train.seed,
    )


def _preferences(zone: ProcessedZone) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """The preferences (rating less neutral) as users x movies, read without Spark, and the ids of rows and columns."""
    from deltalake import DeltaTable  # noqa: PLC0415
    from scipy import sparse  # noqa: PLC0415

    columns = ["userId", "movieId", "rating"]
    ratings = DeltaTable(zone.table("ratings")).to_pyarrow_dataset().to_table(columns=columns)
    ids, places = zip(
        *(np.unique(ratings[column].to_numpy(), return_inverse=True) for column in columns[:2]), strict=True
    )
    values = (ratings["rating"].to_numpy() - IMPLICIT["neutral"]).astype(np.float32)
    return sparse.csr_matrix((values, places), (len(ids[0]), len(ids[1]))), *ids


def lists_ours(places: Places) -> dict[str, Any]:
    """The seconds of our top N without reasons, from tables and models to lists, which are not written.

    `again` is the time to make the lists a second time, when Java is as warm as it is in the pipeline.
    """
    from spark_app.model.lists import recommend  # noqa: PLC0415
    from spark_app.zones.manifest import RunRecord  # noqa: PLC0415
    from spark_app.zones.stored_models import load_models, published_models  # noqa: PLC0415

    spark, zone, settings = _session("lists"), places.zone, Settings()
    started = time.monotonic()
    record = RunRecord("bench", settings)
    ratings = zone.input_by_user(spark, "ratings", record)
    models, _ = load_models(spark, published_models(zone))
    candidates = models.candidates(zone.movie_ids(), settings.recommend.catalogue_bytes)
    block_users = settings.recommend.block_users
    seen = ratings.select("userId", "movieId", "rating")
    lists = recommend(spark, models.implicit.user_rows, seen, candidates, N, block_users, everyone=True)
    return _made_twice(spark, lists, started)


def lists_mllib(places: Places) -> dict[str, Any]:
    """The seconds of MLlib's `recommendForAllUsers` with the same factors; its lists include seen movies."""
    spark = _session("recommendForAllUsers")
    started = time.monotonic()
    return _made_twice(spark, _stored_model(places.zone).recommendForAllUsers(N), started)


def lists_implicit(places: Places) -> dict[str, Any]:
    """The seconds of `implicit`'s `recommend` for all users with the same factors, seen movies left out."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    from spark_app.model.matrices import as_matrix  # noqa: PLC0415

    model = _implicit_als(_stored_rank(places.zone))
    started = time.monotonic()
    matrix, *ids = _preferences(places.zone)
    factors = []
    for side, known in zip(("userFactors", "itemFactors"), ids, strict=True):
        stored = pq.read_table(_model_folder(places.zone) / side)
        rows = np.zeros((len(known), model.factors), dtype=np.float32)
        rows[np.searchsorted(known, stored["id"].to_numpy())] = as_matrix(
            stored["features"].combine_chunks(), model.factors
        )
        factors.append(rows)
    model.user_factors, model.item_factors = factors
    model.recommend(np.arange(len(ids[0])), matrix, N=N, filter_already_liked_items=True)
    return {"work": time.monotonic() - started}


def _model_folder(zone: ProcessedZone) -> Path:
    from spark_app.zones.stored_models import IMPLICIT, published_models  # noqa: PLC0415

    return Path(published_models(zone)) / IMPLICIT


def _stored_rank(zone: ProcessedZone) -> int:
    from spark_app.zones.stored_models import model_facts  # noqa: PLC0415

    return int(model_facts(zone)["implicit_als"]["rank"])


def _stored_model(zone: ProcessedZone) -> ALSModel:
    from pyspark.ml.recommendation import ALSModel  # noqa: PLC0415

    return ALSModel.load(str(_model_folder(zone)))


def _session(name: str) -> SparkSession:
    """A session with the settings of the jobs, but for their memory: CORES cores and SPARK_MEMORY."""
    from pyspark.sql import SparkSession  # noqa: PLC0415

    from spark_app.platform.session import daemon_settings, start_workers  # noqa: PLC0415

    builder = SparkSession.builder.appName(f"bench {name}").master(f"local[{CORES}]")
    builder = builder.config("spark.driver.memory", SPARK_MEMORY)
    spark = builder.config(map=dict(daemon_settings())).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    start_workers(spark).join()
    return spark


def _made_twice(spark: SparkSession, lists: DataFrame, started: float) -> dict[str, Any]:
    """Compute lists twice without writing them.

    Returns `work`, the seconds from `started` to the end of the first time, and `again`, those of the second time.
    """
    lists.write.format("noop").mode("overwrite").save()
    first = time.monotonic()
    lists.write.format("noop").mode("overwrite").save()
    again = time.monotonic() - first
    spark.stop()
    return {"work": first - started, "again": again}


COMMANDS: dict[str, Callable[[Places], dict[str, Any]]] = {
    "etl-duckdb": etl_duckdb,
    "etl-polars": etl_polars,
    "fits-mllib": fits_mllib,
    "fits-ours": fits_ours,
    "fit-implicit": fit_implicit,
    "lists-ours": lists_ours,
    "lists-mllib": lists_mllib,
    "lists-implicit": lists_implicit,
}


def main() -> None:
    """Run one command and write its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_peers", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    for name in ("raw", "processed", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    result = COMMANDS[options.command](Places(options.raw, options.processed, options.out))
    (options.out / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
