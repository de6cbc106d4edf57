"""The settings: typed, validated, and each documented where it is declared.

A TOML file overrides the defaults below, and `--set` overrides both.
"""

from __future__ import annotations

import codecs
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from spark_app.platform.errors import UsageError

PRESETS = resources.files("spark_app.platform") / "presets"
"""The folder of the presets, also where the package is imported from a zip."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Section(BaseModel):
    """A group of settings: one `[section]` of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Raw(Section):
    """The raw zone: files as they were delivered, never changed."""

    path: str = ""
    """Root of the raw zone, a path or URI; `--raw-path` sets it. Every stage that reads raw files needs it."""

    movies: str = "movies.csv"
    """The movies, under the root: a file, a folder of files, or a glob; files can be packed. Empty: there is
    no table of movies; all rated movies are used, with their ids as titles."""

    ratings: str = "ratings.csv"
    """The ratings, under the root: a file, a folder of files, or a glob; files can be packed."""

    @field_validator("movies", "ratings")
    @classmethod
    def _is_under_the_root(cls, name: str) -> str:
        if name.startswith(("/", "~")) or "://" in name or ".." in name.split("/"):
            raise ValueError(f"'{name}' is not under the raw root: name a file, a folder or a glob in it")
        return name


class Processed(Section):
    """The processed zone: everything the stages write."""

    path: str = ""
    """Root of the processed zone, a path or URI; `--processed-path` sets it. Every stage except `ingest` needs it."""


class Ingest(Section):
    """Where the raw files come from."""

    source: list[str] = []
    """Sources in order of preference; the first one available is used. Each is `ml-latest-small`, `ml-25m` or `ml-32m`
    (downloads), `synthetic` (generated), or the path of a folder or zip. Empty: the raw zone is used unchanged."""

    base_url: str = "https://files.grouplens.org/datasets/movielens"
    """Where MovieLens sets are downloaded from: `BASE_URL/NAME.zip`, checked by `NAME.zip.md5` if that is published."""

    max_unzipped_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000
    """Largest size of an unpacked zip, in bytes; a larger one is refused."""

    users: Positive = 1_000
    """Number of users that `synthetic` generates."""

    movies: Positive = 2_000
    """Number of movies that `synthetic` generates."""

    ratings: Positive = 100_000
    """Exact number of ratings that `synthetic` generates; at most half of users x movies."""

    seed: Seed = 42
    """Seed of `synthetic`: the same seed generates the same set."""


class Input(Section):
    """How the raw files name their columns, and what their ratings mean."""

    preset: str = ""
    """A known set of ratings whose settings are the defaults: `ml-100k`, `ml-1m`, `ml-10m`, `ml-20m` (and later),
    `amazon-ratings`, `anime`, `book-crossing`, `goodbooks-10k`, `jester`, `lastfm-360k`, `lastfm-hetrec`,
    `netflix-prize`, `retailrocket` or `steam-200k`. Other settings override it, unless they are the usual defaults in a
    file. Empty: none."""

    user: str = Field(default="userId", min_length=1)
    """Column of the user's id, in the ratings."""

    item: str = Field(default="movieId", min_length=1)
    """Column of the movie's id, in both tables. A movie can be anything that users rate."""

    rating: str = "rating"
    """Column of the rating, or of the count. Empty, which only counts allow: every row counts as 1."""

    timestamp: str = "timestamp"
    """Column of the time of the rating. Empty: there is none; if a user rated a movie twice, the rating
    delivered last is used."""

    title: str = "title"
    """Column of the title, in the movies. Empty: there is none; the id is the title."""

    genres: str = "genres"
    """Column of the genres, in the movies. Empty: there is none."""

    genre_separator: str = Field(default="|", min_length=1)
    """What stands between two genres of a movie, such as `|`, `,` or ` / `. Blanks around a genre are no part of it."""

    unrated_values: list[str] = []
    """Values of the rating that mean seen without a rating, such as `-1` in anime data. These movies are never
    recommended to the user; nothing else is learned from such rows. `delta/unrated` has them."""

    missing_values: list[str] = []
    """Values of the rating, the time and the genres that mean that there is none, such as `NA`, `NULL`, `\\N` or `99`.
    Rows without a rating are counted as `missing` and not as rejects; a missing time is earlier than any other."""

    delimiter: str = Field(default=",", pattern=r'^[^"\r\n\\]+$')
    """What stands between two fields of a line: one or more characters, such as `,`, `;`, `::` or a tab (`"\\t"`)."""

    ids: Literal["auto", "integer", "any"] = "auto"
    """Which ids are valid. `integer`: integers from 0 to 2147483647; rows with other ids are rejected. `any`: any text;
    such integers are used unchanged, and every other id gets an integer code in `delta/user_ids` or `delta/movie_ids`.
    `auto`: `integer` or `any` for each column, as the whole delivery requires; a few ids that are not integers are
    rejected."""

    take: Literal["new", "all"] = "new"
    """Which files of ratings `etl` reads. `new`: only the files that it has not read before, and merges their rows; all
    files where merging would give another result. `all`: all files, each time."""

    time_format: Literal["auto", "seconds", "milliseconds", "iso"] = "auto"
    """How timestamps are written: as `seconds` or `milliseconds` since 1970, or as ISO 8601 (`iso`; UTC if they name no
    time zone). `auto`: any of these, microseconds, nanoseconds and days such as 20050906; the size of a number tells
    them apart."""

    feedback: Literal["ratings", "counts"] = "ratings"
    """What users gave. `ratings`: ratings on the scale below. `counts`: plays, clicks or purchases, above 0 without an
    upper limit; the counts of one user and movie are added up, and lists are published without predicted ratings."""

    scale_min: float = 0.5
    """Lowest rating on the scale."""

    scale_max: float = 5.0
    """Highest rating on the scale."""

    scale_step: Annotated[float, Field(gt=0)] = 0.5
    """Distance between two neighbouring ratings on the scale."""

    @field_validator("unrated_values", "missing_values", mode="before")
    @classmethod
    def _as_texts(cls, given: Any) -> Any:
        """A list of texts, from a list of texts and numbers or from one of them."""
        values = given if isinstance(given, list) else [given]
        return [f"{value:g}" if type(value) in (int, float) else value for value in values]

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        return self.scale_min, self.scale_max

    @model_validator(mode="after")
    def _is_consistent(self) -> Input:
        if self.scale_max <= self.scale_min:
            raise ValueError("scale_max must be above scale_min")
        if not self.rating and self.feedback != "counts":
            raise ValueError('rating may be empty only with feedback = "counts"')
        if self.unrated_values and not self.rating:
            raise ValueError("unrated_values are values of the rating, which has no column")
        if both := sorted(set(self.unrated_values) & set(self.missing_values)):
            raise ValueError(f"'{both[0]}' cannot be both an unrated and a missing value")
        named = [name for name in (self.user, self.item, self.rating, self.timestamp) if name]
        if len(set(named)) < len(named):
            raise ValueError(f"one column cannot be two things: {', '.join(named)}")
        return self


class TableFile(Section):
    """How the files of a raw table are written."""

    header: bool = True
    """Whether the first line of each file names the columns."""

    columns: list[str] = []
    """The names of the columns by position, for files without a header (`header = false`). An empty name stands for a
    column that is not used; columns after the last one named are not used either."""

    encoding: str = "utf-8"
    """The encoding of the text, by a name that Python knows, such as `utf-8`, `latin-1` or `cp1252`. A byte order mark
    at the start of a file says more: UTF-16 with one is read as such in any case."""

    delimiter: str = Field(default="", pattern=r"^[^\r\n\\]*$")
    """What stands between two fields, one or more characters. Empty: as `input.delimiter` says."""

    quote: str = Field(default='"', pattern=r"^[^\r\n\\]?$")
    """The character around fields that hold delimiters, quotes or line breaks. Empty: there is none, and a quote is a
    character like any other."""

    escape: Literal["doubled", "backslash"] = "doubled"
    """How a quote is written inside quotes. `doubled`: twice. `backslash`: with a backslash before it, as databases
    write it, or twice; a backslash is then written twice."""

    skip_blanks: bool = False
    """Whether blanks after a delimiter are no part of the field, also before a quote (`1, "Heat, The", Drama`)."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            codec = codecs.lookup(name)
            "".encode(name)
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"'{name}' is no encoding: name one such as utf-8, latin-1, cp1252 or utf-16") from error
        return codec.name

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.columns and self.header:
            raise ValueError("columns name the fields of files without a header: set header = false")
        named = [name for name in self.columns if name]
        if repeated := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"columns name '{repeated[0]}' twice")
        if self.quote and self.quote in self.delimiter:
            raise ValueError("the quote cannot be part of the delimiter")
        return self


class RatingsFile(TableFile):
    """How the files of ratings are written."""

    decimal: Literal[".", ","] = "."
    """The character before the decimals of a rating."""

    layout: Literal["lines", "netflix", "matrix"] = "lines"
    """How ratings are laid out. `lines`: a line a rating, in columns. `netflix`: as for the Netflix Prize, a line
    `ITEM:` and below it a line `USER,RATING,DATE` for each rating of the item. `matrix`: a line a user and a column an
    item, as in Jester. With a header every column but `input.user` is an item; without one `columns` names those that
    are none, and the items have the numbers of their columns. A line without a user's id has `FILE:LINE` for one."""


class MoviesFile(TableFile):
    """How the files of movies are written."""

    item: str = ""
    """Column of the movie's id in the movies. Empty: it has the same name as in the ratings (`input.item`)."""

    genre_columns: list[str] = []
    """Columns that each stand for the genre they are named after: a movie has it where the column holds 1. They take
    the place of `input.genres`, which must then be empty."""

    rest_in_last: bool = False
    """Whether the last of the `columns` takes the rest of the line with all delimiters in it, as a title with commas
    does in a file without quotes."""

    @model_validator(mode="after")
    def _ends_in_a_column(self) -> Self:
        if self.rest_in_last and (self.header or self.quote):
            raise ValueError(
                'rest_in_last is for files without a header and without quotes: set header = false, quote = ""'
            )
        return self


class Catalog(Section):
    """What `catalog` does besides registering tables."""

    crawler: str = ""
    """AWS Glue crawler that `catalog` starts after it has registered its tables. It is started only where the catalogue
    is the Glue Data Catalog. Empty: none."""


class Clean(Section):
    """How rows are cleaned between the raw zone and the processed zone."""

    earliest: date = date(1990, 1, 1)
    """Rows with a timestamp before this day (UTC) are rejected."""

    latest: date | None = Field(default=None, examples=[date(2100, 1, 1)])
    """Rows with a timestamp after this day (UTC) are rejected. Left out: the day after the run."""

    max_reject_share: Share = 0.01
    """Largest share of a table's rows that can be rejected; above it nothing is published (exit code 4)."""

    max_lost_share: Share = 0.005
    """Largest share of the ratings that can be rejected only because the line of their movie was; above it nothing is
    published (exit code 4)."""

    damping: Annotated[float, Field(ge=0)] = 10.0
    """Damping of `damped_rating`: the mean of a movie's ratings and this many more at the mean of all ratings."""


class Train(Section):
    """How the models are fitted and judged."""

    holdout: Literal["hash", "time"] = "hash"
    """How the holdout is chosen: `hash` (by a hash of userId and movieId) or `time` (the latest of all ratings)."""

    holdout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the ratings that are held out."""

    seed: Seed = 42
    """Seed of the hash split and of the random factors from which ALS starts."""

    relevant: float = 4.0
    """A held-out rating of at least this makes a movie relevant to its user, in the ranking metrics. Left out: the
    rating that is as far up the scale as 4 is from 0.5 to 5; for counts, any count."""

    k: Positive = 10
    """Length of the lists that the ranking metrics judge: NDCG@k, recall@k, MAP@k."""

    judged_users: Annotated[int, Field(ge=1_000, le=2**31 - 1)] = 200_000
    """Approximate number of users that are judged, at least 1000; where there are more, a hash chooses them. All
    metrics, intervals and slices are of the judged users. The driver holds half a kilobyte per judged user."""

    min_user_ratings: Positive = 1
    """Users with fewer ratings are left out of the fits; they get popular movies."""

    min_movie_ratings: Positive = 1
    """Movies with fewer ratings are left out of the fits; they are recommended only to users who have
    seen all others."""

    when: Literal["always", "new"] = "always"
    """When `explore`, `train` and `recommend` work. `always`: each time. `new`: only where the ratings, the movies, the
    models, or their settings are others than those that they published from; otherwise they end at once."""

    refit: bool = True
    """`true`: after the evaluation, fit again on all ratings and publish that. `false`: publish the evaluated
    models."""

    refit_sweeps: Positive = 3
    """Sweeps of the second fit, which starts from the evaluated factors (MLlib starts from random factors)."""

    start: Literal["random", "published"] = "random"
    """Where the first fit starts. `random`: from random factors. `published`: from the factors that were judged before
    the published ones were fitted, if their rank and the split are the same; this takes fewer sweeps (`refit_sweeps`),
    and makes results depend on earlier runs."""

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """A fit ends after a sweep that lowers its objective by no more than this share."""

    solver: Literal["auto", "own", "mllib"] = "auto"
    """What fits the factors. `own`: this package's solver, which broadcasts them. `mllib`: Spark MLlib's ALS, which
    shuffles them and is several times slower. `auto`: `mllib` only where they are larger than `broadcast_bytes`."""

    broadcast_bytes: Annotated[int, Field(ge=1)] = 1_000_000_000
    """Largest factors of users and movies together that are broadcast, in bytes: (users + movies) x rank x 4."""

    block_ratings: Positive = 2_000_000
    """Ratings per block. Users and movies are divided into blocks, at least 4. More blocks can use more cores, and need
    less memory each; they change only the last digits of the result."""


class ExplicitAls(Section):
    """Matrix factorisation of the ratings. Together with the biases it gives `predicted_rating`."""

    rank: Positive = 64
    """Number of latent factors."""

    reg: Annotated[float, Field(gt=0)] = 1.1
    """Regularisation. For each user and movie it is multiplied by their number of ratings to the power `reg_power`."""

    reg_power: Annotated[float, Field(ge=0, le=1)] = 0.55
    """How regularisation grows with the number of ratings: at 1 in proportion (ALS-WR), at 0 not at all. MLlib supports
    only 1, and gets the `reg` that regularises as much in total."""

    biases: bool = True
    """Whether biases of users and movies are fitted with the factors, as two more columns (MLlib cannot do this)."""

    iterations: Positive = 10
    """Largest number of sweeps of alternating least squares."""


class ImplicitAls(Section):
    """Matrix factorisation of preferences. It gives the ranking."""

    rank: Positive = 128
    """Number of latent factors."""

    reg: Annotated[float, Field(gt=0)] = 5.0
    """Regularisation. For each user and movie it is multiplied by their number of likes to the power `reg_power`."""

    reg_power: Annotated[float, Field(ge=0, le=1)] = 0.55
    """How regularisation grows with the number of likes: at 1 in proportion (ALS-WR), at 0 not at all. MLlib supports
    only 1, and gets the `reg` that regularises as much in total."""

    alpha: Annotated[float, Field(gt=0)] = 3.0
    """Confidence gained per point of distance from `neutral`. Left out: 3 on a scale as wide as 0.5 to 5, in inverse
    proportion on others; 6 for counts."""

    neutral: float = 2.25
    """A rating above this says that the user likes the movie; a rating below this says that they do not. Left out: as
    far up the scale as 2.25 is from 0.5 to 5; 0 for counts."""

    confidence: Literal["linear", "log"] = "linear"
    """How confidence grows with the distance from `neutral`: in proportion (`linear`), or as ln(1 + distance) (`log`),
    so that a hundred plays do not count a hundred times as much as one. Left out: `log` for counts, else `linear`."""

    popularity_exponent: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Scores are multiplied by (1 + ratings of the movie) to this power. Above 0 it favours popular movies, below 0
    rare ones; 0 leaves scores unchanged."""

    iterations: Positive = 10
    """Largest number of sweeps of alternating least squares."""


class Biases(Section):
    """The bias-only model: mean + user bias + movie bias. A baseline, and part of `predicted_rating`."""

    movie_reg: Annotated[float, Field(ge=0)] = 5.0
    """Damping of a movie's bias: as if it had this many more ratings at the mean."""

    user_reg: Annotated[float, Field(ge=0)] = 8.0
    """Damping of a user's bias: as if they had given this many more ratings at the mean."""

    sweeps: Positive = 3
    """How many times the biases of movies and users are estimated in turn, each from the other."""


class Gate(Section):
    """What a ranking must reach before it is published."""

    enforce: bool = True
    """`true`: a ranking that fails the gate is not published (exit code 5). `false`: it is published, and the failure
    is recorded."""

    min_lift: Annotated[float, Field(ge=0)] = 1.0
    """A ranking fails if its NDCG@k is below this many times that of popularity, by more than chance: the 95 % interval
    of the difference, on the same users, lies below 0."""

    against: Literal["published", "popularity"] = "published"
    """What else a ranking is compared with. `published`: it also fails if its NDCG@k is below that of the published
    ranking, by more than chance, on the same holdout, which neither has learned from. `popularity`: nothing else."""


class Recommend(Section):
    """What is published for each user."""

    n: Positive = 10
    """Number of movies for each user; fewer only where a user has rated nearly the whole catalogue."""

    reasons: Annotated[int, Field(ge=0, le=2)] = 2
    """How many movies that the user likes are named as the reason for each recommendation. 0: none, which is faster."""

    fold_in: Literal["none", "new", "changed"] = "changed"
    """Which users get new factors from ratings that the fit has not seen, without another fit: their factors are solved
    with the factors of the movies fixed. `new`: users who came after the fit. `changed`: also users whose ratings have
    changed since. `none`: nobody; new users then get popular movies."""

    catalogue_bytes: Positive = 1_000_000_000
    """Largest catalogue that a task holds at once, in bytes: movies x (rank + 2) x 4, beside the factors for predicted
    ratings. A larger one is ranked block by block of movies, which gives the same lists, but no reasons."""

    block_users: Positive = 256
    """Number of users scored at a time. For each core, scores take this number x 2048 movies x 4 bytes of memory."""

    items: list[str] = []
    """Only these movies may be recommended: lists of their ids, as delivered. A list is a CSV or text file, a Parquet
    file or folder, or a Delta table, on a disk or in S3. Empty: all movies."""

    exclude: list[str] = []
    """These movies must not be recommended: lists of their ids, as in `items`."""

    genres: list[str] = []
    """Only movies with at least one of these genres may be recommended. Empty: all."""

    exclude_genres: list[str] = []
    """Movies with one of these genres must not be recommended."""

    min_year: int | None = Field(default=None, examples=[1980])
    """Only movies of this year or later may be recommended; a movie without a year in its title may not. Left out:
    all."""

    max_year: int | None = Field(default=None, examples=[1999])
    """Only movies of this year or earlier may be recommended; a movie without a year in its title may not. Left out:
    all."""

    min_ratings: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Only movies with at least this many ratings may be recommended."""

    min_predicted_rating: float | None = Field(default=None, examples=[3.5])
    """Only movies with at least this predicted rating are recommended to a user. Left out: all."""

    min_above_mean: float | None = Field(default=None, examples=[0.0])
    """Only movies are recommended whose predicted rating is at least the mean of the user's own ratings plus this
    number, which can be negative. Left out: all."""

    users: list[str] = []
    """Only these users get lists: lists of their ids, as in `items`. Empty: all users."""

    active_since: date | None = Field(default=None, examples=[date(2024, 1, 1)])
    """Only users who have rated something on this day (UTC) or later get lists. Left out: all users."""

    @model_validator(mode="after")
    def _has_years_in_order(self) -> Recommend:
        if self.min_year is not None and self.max_year is not None and self.min_year > self.max_year:
            raise ValueError(f"min_year={self.min_year} is after max_year={self.max_year}")
        return self

    @property
    def has_lowest_rating(self) -> bool:
        """Whether movies with a low predicted rating are left out."""
        return self.min_predicted_rating is not None or self.min_above_mean is not None

    @property
    def leaves_out_movies(self) -> bool:
        """Whether some movies may be recommended to nobody, or not to everybody."""
        return self.restricts_movies or self.has_lowest_rating

    @property
    def restricts_movies(self) -> bool:
        """Whether some movies may be recommended to nobody."""
        years = (self.min_year, self.max_year)
        lists = (self.items, self.exclude, self.genres, self.exclude_genres)
        return any(lists) or any(year is not None for year in years) or self.min_ratings > 0


class Similar(Section):
    """The movies that are like each movie: `recommend` publishes them."""

    n: Annotated[int, Field(ge=0, le=2**31 - 1)] = 20
    """Number of similar movies of each movie. 0: none are published. The time grows with the square of the number of
    movies."""

    min_ratings: Annotated[int, Field(ge=0, le=2**31 - 1)] = 5
    """Movies with fewer ratings are left out: they have no similar movies and are none."""


class Tune(Section):
    """How `tune` searches for the settings of the models."""

    objective: Literal["both", "ranking", "rating"] = "both"
    """What `tune` improves: the `ranking` (NDCG@k), the predicted `rating` (RMSE), or `both` in turn."""

    trials: Positive = 40
    """Number of trials of each objective, including those of earlier runs on the same ratings and settings."""

    max_rank: Positive = 128
    """Largest number of latent factors that is tried. The time of a fit grows with up to its square."""


class Storage(Section):
    """How zones are locked, and how long old data is kept."""

    lease_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Seconds after which a run that holds a zone in S3, and has not renewed its lock, counts as dead: another run can
    then take the zone. (On a disk the operating system frees the lock at once.)"""

    keep_runs: Positive = 10
    """Number of runs whose models, reports and rejects are kept; `pipeline` and `maintain` remove those of older runs.
    Everything published stays, and so do all manifests."""

    history_days: Annotated[int, Field(ge=1, le=3650)] = 7
    """Number of days for which earlier versions of the Delta tables can be read and restored; `maintain` removes older
    versions."""


class Log(Section):
    """What a job logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is logged."""

    format: Literal["text", "json"] = "text"
    """`text`: one readable line per event. `json`: one JSON object per line."""


class Settings(Section):
    """All settings of a run."""

    raw: Raw = Raw()
    processed: Processed = Processed()
    ingest: Ingest = Ingest()
    input: Input = Input()
    ratings_file: RatingsFile = RatingsFile()
    movies_file: MoviesFile = MoviesFile()
    catalog: Catalog = Catalog()
    clean: Clean = Clean()
    train: Train = Train()
    explicit_als: ExplicitAls = ExplicitAls()
    implicit_als: ImplicitAls = ImplicitAls()
    biases: Biases = Biases()
    gate: Gate = Gate()
    recommend: Recommend = Recommend()
    similar: Similar = Similar()
    tune: Tune = Tune()
    storage: Storage = Storage()
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _follow_the_scale(cls, given: Any) -> Any:
        """Fill in the settings that depend on the scale of the ratings, unless they are given."""
        if not isinstance(given, dict) or not isinstance(given.get("input"), dict):
            return given
        try:
            defaults = _of_scale(Input.model_validate(given["input"]))
        except ValidationError:
            return given  # the validation of the section itself reports it
        filled = dict(given)
        for section, values in defaults.items():
            if isinstance(group := given.get(section, {}), dict):
                filled[section] = {**values, **group}
        return filled

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Settings:
        if self.train.holdout == "time" and not self.input.timestamp:
            raise ValueError('train.holdout = "time" needs timestamps: name their column in input.timestamp')
        if self.recommend.active_since and not self.input.timestamp:
            raise ValueError("recommend.active_since needs timestamps: name their column in input.timestamp")
        if self.recommend.has_lowest_rating and self.input.feedback == "counts":
            raise ValueError(
                "no ratings are predicted from counts: leave out recommend.min_predicted_rating and "
                "recommend.min_above_mean"
            )
        lowest = self.recommend.min_predicted_rating
        if lowest is not None and lowest > self.input.scale_max:
            raise ValueError(
                f"recommend.min_predicted_rating={lowest:g} is above the scale, which ends at {self.input.scale_max:g}"
            )
        return self

    @model_validator(mode="after")
    def _names_the_columns_of_its_files(self) -> Settings:
        used = self.input
        ratings = (used.user, used.item, used.rating, used.timestamp) if self.ratings_file.layout == "lines" else ()
        genres = (used.genres, *self.movies_file.genre_columns)
        movies = (self.movies_file.item or used.item, used.title, *genres) if self.raw.movies else ()
        if all(genres[:2]) and len(genres) > 1:
            raise ValueError('movies_file.genre_columns take the place of input.genres: set input.genres = ""')
        for section, file, names in (
            ("ratings_file", self.ratings_file, ratings),
            ("movies_file", self.movies_file, movies),
        ):
            if file.quote and file.quote in used.delimiter and not file.delimiter:
                raise ValueError(f"{section}.quote cannot be part of input.delimiter")
            if file is self.ratings_file and self.ratings_file.layout == "matrix" and used.timestamp:
                raise ValueError('ratings_file.layout = "matrix" has no times: set input.timestamp = ""')
            unnamed = [name for name in names if name and name not in file.columns]
            if not file.header and unnamed:
                raise ValueError(
                    f"{section}.header = false, but {section}.columns does not name '{unnamed[0]}': name the columns "
                    "in their order, or say under [input] which there are"
                )
        return self


SET_BY_THE_INPUT = ("train.relevant", "implicit_als.alpha", "implicit_als.neutral", "implicit_als.confidence")
"""The settings whose defaults depend on `input.feedback` and on the scale."""


def _of_scale(given: Input) -> dict[str, dict[str, Any]]:
    """The defaults for this input, by section and key: for ratings, the usual defaults moved to its scale."""
    if given.feedback == "counts":
        return {"train": {"relevant": 0.0}, "implicit_als": {"neutral": 0.0, "confidence": "log", "alpha": 6.0}}
    usual, train, implicit = Input(), Train(), ImplicitAls()
    stretch = (given.scale_max - given.scale_min) / (usual.scale_max - usual.scale_min)

    def moved(value: float) -> float:
        return given.scale_min + (value - usual.scale_min) * stretch

    steps = round((moved(train.relevant) - given.scale_min) / given.scale_step)
    return {
        "train": {"relevant": round(given.scale_min + steps * given.scale_step, 6)},
        "implicit_als": {"neutral": round(moved(implicit.neutral), 6), "alpha": round(implicit.alpha / stretch, 6)},
    }


def parse_assignment(text: str) -> tuple[str, str, Any]:
    """Split `SECTION.KEY=VALUE` into section, key and value. A value that is not TOML is taken as text.

    Raises UsageError where the text is not of that form.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise UsageError(f"--set takes SECTION.KEY=VALUE, such as gate.enforce=false; got '{text}'")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return section, key, parsed


def build_settings(
    toml: str | None = None, origin: str = "", assignments: Iterable[str] = (), input_settings: Input | None = None
) -> Settings:
    """The settings of a TOML text (`origin` names its file in errors) and of `SECTION.KEY=VALUE` assignments.

    `input_settings` are used where neither says anything of the section `input`.

    Raises UsageError that names each unknown key with the nearest known one, and each value that does not fit.
    """
    wrong: list[str] = []
    parsed: list[str] = []
    for assignment in assignments:
        try:
            parse_assignment(assignment)
            parsed.append(assignment)
        except UsageError as error:
            wrong.append(str(error))
    try:
        sections = merge_settings(toml, origin, parsed)
        if input_settings:
            sections.setdefault("input", input_settings.model_dump())
        settings = Settings.model_validate(sections)
    except ValidationError as error:
        wrong.extend(_explain(each) for each in error.errors())
    if len(wrong) > 1:
        listed = " ".join(f"({number}) {each}" for number, each in enumerate(wrong, start=1))
        raise UsageError(f"{len(wrong)} settings are wrong: {listed}")
    if wrong:
        raise UsageError(wrong[0])
    return settings


def merge_settings(toml: str | None = None, origin: str = "", assignments: Iterable[str] = ()) -> dict[str, Any]:
    """The sections of a TOML text, overridden by the assignments, over the preset that one of them names.

    Nothing checks their names and values. Raises UsageError for a text that is not TOML, for an assignment of another
    form, and for an unknown preset.
    """
    try:
        sections: dict[str, Any] = tomllib.loads(toml or "")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not valid TOML: {error}") from error
    assigned: dict[str, Any] = {}
    for assignment in assignments:
        section, key, value = parse_assignment(assignment)
        if isinstance(value, str) and _takes_list(section, key):
            value = [value] if value else []
        assigned.setdefault(section, {})[key] = value
    merged = _merged(sections, assigned)
    preset = merged["input"].get("preset") if isinstance(merged.get("input"), dict) else None
    if not isinstance(preset, str) or not preset:
        return merged
    return _merged(_merged(_preset(preset), _without_defaults(sections)), assigned)


def _merged(sections: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key; where both have a key, the later value. What is no section, but should be, stays."""
    merged = dict(sections)
    for name, group in later.items():
        before = merged.get(name, {})
        if isinstance(before, dict):
            merged[name] = {**before, **group} if isinstance(group, dict) else group
    return merged


def _without_defaults(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections without keys that have their usual defaults, as all keys of conf/pipeline.toml have."""
    usual = Settings().model_dump()
    return {
        name: {key: value for key, value in group.items() if key not in usual[name] or value != usual[name][key]}
        if isinstance(group, dict) and name in usual
        else group
        for name, group in sections.items()
    }


def preset_names() -> list[str]:
    """The names of all presets, in order."""
    return sorted(file.name.removesuffix(".toml") for file in PRESETS.iterdir() if file.name.endswith(".toml"))


def _preset(name: str) -> dict[str, Any]:
    """The sections of a preset. Raises UsageError that names the nearest one if there is no such preset."""
    if name not in (known := preset_names()):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
        raise UsageError(f"input.preset = '{name}' is unknown; {hint}")
    return tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def _takes_list(section: str, key: str) -> bool:
    """Whether a setting is a list, so that a single name can stand for a list of one."""
    group = Settings.model_fields.get(section)
    field = group.default.__class__.model_fields.get(key) if group else None
    return field is not None and field.annotation == list[str]


def _explain(error: ErrorDetails) -> str:
    """One line for an error of pydantic."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # an error across keys, whose message names them
        return f"setting {where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    if error["type"] != "extra_forbidden":
        return f"setting {where}: {error['msg']}; got {error['input']!r}"
    known = _known_keys()
    nearest = difflib.get_close_matches(where, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else f"; known sections: {', '.join(Settings.model_fields)}"
    return f"unknown setting {where}{hint}"


def _known_keys() -> list[str]:
    names: list[str] = []
    for section, field in Settings.model_fields.items():
        names.append(section)
        keys: Mapping[str, Any] = field.default.__class__.model_fields
        names.extend(f"{section}.{key}" for key in keys)
    return names
