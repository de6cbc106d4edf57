"""Settings: typed, validated, each documented where it is declared.

They come from the defaults below, then a TOML file, then `--set`, each overriding the one before.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from spark_app.platform.errors import UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Section(BaseModel):
    """A group of settings: a `[section]` of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Raw(Section):
    """The raw zone: files as they were delivered, never changed."""

    path: str = ""
    """Root of the raw zone, a path or URI; `--raw-path` sets it. Every stage that reads raw files needs it."""

    movies: str = "movies.csv"
    """Movies under the root: a file, a folder of files, or a glob; `.gz` too. Empty: there is no such table, and the
    movies are those that are rated, with their ids as titles."""

    ratings: str = "ratings.csv"
    """Ratings under the root: a file, a folder of files, or a glob; `.gz` too."""

    @field_validator("movies", "ratings")
    @classmethod
    def _is_under_the_root(cls, name: str) -> str:
        if name.startswith(("/", "~")) or "://" in name or ".." in name.split("/"):
            raise ValueError(f"'{name}' is not under the raw root: name a file, a folder or a glob in it")
        return name


class Processed(Section):
    """The processed zone: everything the stages write."""

    path: str = ""
    """Root of the processed zone, a path or URI; `--processed-path` sets it. Every stage but `ingest` needs it."""


class Ingest(Section):
    """Where the raw files come from."""

    source: list[str] = []
    """Tried in order until one can be had: `ml-latest-small`, `ml-25m`, `ml-32m` (downloads), `synthetic`
    (generated), or the path of a folder or zip. Empty: the raw zone is used as it is."""

    base_url: str = "https://files.grouplens.org/datasets/movielens"
    """Where the named MovieLens sets are downloaded from: `BASE_URL/NAME.zip`, with `NAME.zip.md5` if published."""

    max_unzipped_bytes: Annotated[int, Field(ge=1)] = 20_000_000_000
    """A zip that would unpack to more bytes than this is refused."""

    users: Positive = 1_000
    """Users that `synthetic` makes."""

    movies: Positive = 2_000
    """Movies that `synthetic` makes."""

    ratings: Positive = 100_000
    """Ratings that `synthetic` makes, exactly; at most half of users x movies."""

    seed: Seed = 42
    """Seed of `synthetic`: one seed, one set."""


class Input(Section):
    """What the raw files call their columns, and what their ratings mean."""

    user: str = Field(default="userId", min_length=1)
    """Column of the user's id, in the ratings."""

    item: str = Field(default="movieId", min_length=1)
    """Column of the movie's id, in both tables. A movie may be anything that is rated."""

    rating: str = "rating"
    """Column of the rating, or of the count. Empty, for counts only: every row counts as one."""

    timestamp: str = "timestamp"
    """Column of the time of the rating. Empty: there is none, and of two ratings of one movie the last delivered
    counts."""

    title: str = "title"
    """Column of the title, in the movies. Empty: there is none, and the id is the title."""

    genres: str = "genres"
    """Column of the genres, in the movies, divided by `|`. Empty: there is none."""

    delimiter: str = Field(default=",", pattern=r'^[^"\r\n\\]$')
    """The character between two fields of a line, such as `;`, or a tab: "\\t"."""

    ids: Literal["auto", "integer", "any"] = "auto"
    """`integer`: ids are integers from 1 to 2147483647, and what is none is rejected. `any`: such integers are used as
    they are, and each other text gets a code in `delta/user_ids` or `movie_ids`. `auto`: what the first lines need."""

    take: Literal["new", "all"] = "new"
    """`new`: `etl` reads the files of ratings that it has not taken yet and merges them, where that gives the same as
    reading all. `all`: every file, each time."""

    time_format: Literal["seconds", "milliseconds", "iso"] = "seconds"
    """How timestamps are written: as whole seconds or milliseconds since 1970, or as ISO 8601 (UTC where it names no
    zone)."""

    feedback: Literal["ratings", "counts"] = "ratings"
    """`ratings`: on the scale below. `counts`: plays, clicks, purchases, above 0 without a limit. The counts of one
    user and movie are added up, and the lists are published without predicted ratings."""

    scale_min: float = 0.5
    """Lowest rating on the scale."""

    scale_max: float = 5.0
    """Highest rating on the scale."""

    scale_step: Annotated[float, Field(gt=0)] = 0.5
    """Distance between two neighbouring ratings on the scale."""

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
        named = [name for name in (self.user, self.item, self.rating, self.timestamp) if name]
        if len(set(named)) < len(named):
            raise ValueError(f"one column cannot be two things: {', '.join(named)}")
        return self


class Catalog(Section):
    """What `catalog` does besides registering tables."""

    crawler: str = ""
    """A crawler of AWS Glue that `catalog` starts once it has registered what it knows; for where the catalogue is the
    Glue Data Catalog. Empty: none."""


class Clean(Section):
    """What a row must be to pass from the raw zone to the processed zone."""

    earliest: date = date(1990, 1, 1)
    """A timestamp before this day (UTC) is implausible."""

    latest: date | None = Field(default=None, examples=[date(2100, 1, 1)])
    """A timestamp after this day (UTC) is implausible. Left out: the day after the run."""

    max_reject_share: Share = 0.01
    """Largest share of a table's rows that may be turned away; above it nothing is published (exit 4)."""

    damping: Annotated[float, Field(ge=0)] = 10.0
    """`damped_rating` of a movie: its ratings and this many more at the mean of all ratings."""


class Train(Section):
    """How models are judged, and what they learn from."""

    holdout: Literal["hash", "time"] = "hash"
    """How the holdout is chosen: `hash` of (userId, movieId), or `time` (the latest ratings of all)."""

    holdout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the ratings held out."""

    seed: Seed = 42
    """Seed of the hash split and of the factors ALS starts from."""

    relevant: float = 4.0
    """A held-out rating of at least this makes a movie relevant to its user, in the ranking metrics. Left out: as far
    up the scale as 4 from 0.5 to 5; of counts, any."""

    k: Positive = 10
    """Length of the lists that the ranking metrics judge: NDCG@k, recall@k, MAP@k."""

    judged_users: Annotated[int, Field(ge=1_000, le=2**31 - 1)] = 200_000
    """About so many users are judged, at least 1000, chosen by a hash, where there are more of them: all metrics, their
    intervals and slices are of these. The driver holds what is known of each, half a kilobyte a user."""

    min_user_ratings: Positive = 1
    """Users with fewer ratings are left out of the fits; they get popular movies."""

    min_movie_ratings: Positive = 1
    """Movies with fewer ratings are left out of the fits; they are recommended only where all others are seen."""

    refit: bool = True
    """Fit again on all ratings after the evaluation, and publish that. False: publish the evaluated models."""

    refit_sweeps: Positive = 3
    """Sweeps of that second fit, which starts from the factors that were judged (MLlib starts anew)."""

    start: Literal["random", "published"] = "random"
    """Where the first fit starts: from random factors, or from those published last, if their rank is the same, which
    takes fewer sweeps (`refit_sweeps`) and makes results depend on the runs before."""

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """A fit ends after a sweep that has lowered its objective by no more than this share of it."""

    solver: Literal["auto", "own", "mllib"] = "auto"
    """What fits the factors: `own`, which broadcasts them, `mllib` (Spark MLlib's ALS, several times slower, which
    shuffles them), or `auto`: MLlib only where they are larger than `broadcast_bytes`."""

    broadcast_bytes: Annotated[int, Field(ge=1)] = 1_000_000_000
    """Largest factors, of users and movies together, that are broadcast: (users + movies) x rank x 4 bytes."""

    block_ratings: Positive = 2_000_000
    """Ratings for each of the blocks into which users and movies are divided, of which there are at least 4. More
    blocks can use more cores and need less memory each; the result depends on them in the last digits only."""


class ExplicitAls(Section):
    """Matrix factorisation of the ratings: with the biases it gives `predicted_rating`."""

    rank: Positive = 64
    """Number of latent factors."""

    reg: Annotated[float, Field(gt=0)] = 1.1
    """Regularisation, times the number of ratings of each user and movie to the power `reg_power`."""

    reg_power: Annotated[float, Field(ge=0, le=1)] = 0.55
    """How regularisation grows with the number of ratings: 1 in proportion (ALS-WR), 0 not at all. MLlib knows 1 only,
    and is given the `reg` that regularises as much in all."""

    biases: bool = True
    """Whether biases of users and movies are fitted with the factors, as two more columns of them (not by MLlib)."""

    iterations: Positive = 10
    """Sweeps of alternating least squares, at most."""


class ImplicitAls(Section):
    """Matrix factorisation of preferences: gives the ranking."""

    rank: Positive = 128
    """Number of latent factors."""

    reg: Annotated[float, Field(gt=0)] = 5.0
    """Regularisation, times the number of likes of each user and movie to the power `reg_power`."""

    reg_power: Annotated[float, Field(ge=0, le=1)] = 0.55
    """How regularisation grows with the number of likes: 1 in proportion (ALS-WR), 0 not at all. MLlib knows 1 only,
    and is given the `reg` that regularises as much in all."""

    alpha: Annotated[float, Field(gt=0)] = 3.0
    """Confidence gained per point of distance from `neutral`. Left out: 3, on a scale as wide as 0.5 to 5; of counts,
    6."""

    neutral: float = 2.25
    """A rating above it says that the user likes the movie, one below it that they do not. Left out: as far up the
    scale as 2.25 from 0.5 to 5; of counts, 0."""

    confidence: Literal["linear", "log"] = "linear"
    """What the distance from `neutral` is worth: itself, or ln(1 + distance), so that a hundred plays are not worth a
    hundred times as much as one. Left out: `log` for counts."""

    popularity_exponent: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Scores are multiplied by (1 + ratings of the movie) to this power: above 0 popular movies are favoured, below 0
    rare ones; 0 leaves scores as they are."""

    iterations: Positive = 10
    """Sweeps of alternating least squares, at most."""


class Biases(Section):
    """The bias-only model: mean + user bias + movie bias. A baseline, and part of `predicted_rating`."""

    movie_reg: Annotated[float, Field(ge=0)] = 5.0
    """Damping of a movie's bias: as if it had this many more ratings at the mean."""

    user_reg: Annotated[float, Field(ge=0)] = 8.0
    """Damping of a user's bias: as if they had given this many more ratings at the mean."""

    sweeps: Positive = 3
    """How often movie and user biases are estimated, each given the other."""


class Gate(Section):
    """What a ranking must reach before it is published."""

    enforce: bool = True
    """False: record that the gate failed, and publish all the same."""

    min_lift: Annotated[float, Field(ge=0)] = 1.0
    """The ranking's NDCG@k must be above this many times that of popularity."""


class Recommend(Section):
    """What is published for each user."""

    n: Positive = 10
    """Movies for each user; fewer only where a user has rated nearly the whole catalogue."""

    reasons: Annotated[int, Field(ge=0, le=2)] = 2
    """How many movies that the user likes are named as the reason of each recommendation. 0: none, which is faster."""

    fold_in: Literal["none", "new", "changed"] = "changed"
    """Whose factors are solved anew, against those of the movies and without another fit, from ratings that the fit has
    not seen: of users who came after it (`new`), also of those who had other ratings then (`changed`), or of nobody
    (`none`): new users get popular movies then."""

    catalogue_bytes: Positive = 1_000_000_000
    """Largest catalogue that a task holds, in bytes: movies x (rank + 2) x 4. A larger one is taken in blocks of
    movies, in turn, which gives the same lists, but no reasons."""

    block_users: Positive = 256
    """Users scored at a time; memory for scores is this x 2048 movies x 4 bytes for each core."""


class Tune(Section):
    """How `tune` searches for settings of the models."""

    objective: Literal["both", "ranking", "rating"] = "both"
    """What is searched: settings of the `ranking` (NDCG@k), of the predicted `rating` (RMSE), or `both` in turn."""

    trials: Positive = 40
    """Trials of each objective, those of earlier runs on the same ratings and settings included."""

    max_rank: Positive = 128
    """Most latent factors that are tried: a fit takes up to their square in time."""


class Storage(Section):
    """How what is stored is looked after."""

    lease_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """A run that holds a zone in S3 and says nothing for so long counts as dead, and another may take the zone. (On a
    disk the system knows at once.)"""

    keep_runs: Positive = 10
    """Of so many runs the models, reports and rejects are kept; `pipeline` and `maintain` remove those of older ones.
    What is published stays, and so do all manifests."""

    history_days: Annotated[int, Field(ge=1, le=3650)] = 7
    """Earlier versions of the Delta tables can be read and restored for so many days: `maintain` removes older ones."""


class Log(Section):
    """What is said while a job runs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe event shown."""

    format: Literal["text", "json"] = "text"
    """`text`: a readable line an event. `json`: one JSON object a line."""


class Settings(Section):
    """All settings of a run."""

    raw: Raw = Raw()
    processed: Processed = Processed()
    ingest: Ingest = Ingest()
    input: Input = Input()
    catalog: Catalog = Catalog()
    clean: Clean = Clean()
    train: Train = Train()
    explicit_als: ExplicitAls = ExplicitAls()
    implicit_als: ImplicitAls = ImplicitAls()
    biases: Biases = Biases()
    gate: Gate = Gate()
    recommend: Recommend = Recommend()
    tune: Tune = Tune()
    storage: Storage = Storage()
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _follow_the_scale(cls, given: Any) -> Any:
        """Fill in what follows from the scale of the ratings, wherever it is not given."""
        if not isinstance(given, dict) or not isinstance(given.get("input"), dict):
            return given
        try:
            found = _of_scale(Input.model_validate(given["input"]))
        except ValidationError:
            return given  # it is told when the section itself is validated
        filled = dict(given)
        for section, values in found.items():
            if isinstance(group := given.get(section, {}), dict):
                filled[section] = {**values, **group}
        return filled

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Settings:
        if self.train.holdout == "time" and not self.input.timestamp:
            raise ValueError('train.holdout = "time" needs timestamps: name their column in input.timestamp')
        return self


SET_BY_THE_INPUT = ("train.relevant", "implicit_als.alpha", "implicit_als.neutral", "implicit_als.confidence")
"""Settings whose defaults follow from the scale and the kind of feedback."""


def _of_scale(given: Input) -> dict[str, dict[str, Any]]:
    """The settings that follow from the scale, as the defaults do from the default scale."""
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
    """Split `SECTION.KEY=VALUE`. The value is read as TOML; what is no TOML is taken as text.

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


def build_settings(toml: str | None = None, origin: str = "", assignments: Iterable[str] = ()) -> Settings:
    """Settings from the text of a TOML file (`origin` names it in errors) and `SECTION.KEY=VALUE` assignments.

    Raises UsageError naming the key that is unknown (and the nearest known one) or the value that does not fit.
    """
    try:
        return Settings.model_validate(merge_settings(toml, origin, assignments))
    except ValidationError as error:
        raise UsageError(_explain(error.errors()[0])) from error


def merge_settings(toml: str | None = None, origin: str = "", assignments: Iterable[str] = ()) -> dict[str, Any]:
    """The sections of a TOML file with the assignments over them, as they are given: not held against what is known.

    Raises UsageError for a text that is no TOML, and for an assignment that is none.
    """
    try:
        sections: dict[str, Any] = tomllib.loads(toml or "")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not valid TOML: {error}") from error
    for assignment in assignments:
        section, key, value = parse_assignment(assignment)
        group = sections.setdefault(section, {})
        if isinstance(group, dict):
            if isinstance(value, str) and _takes_list(section, key):
                value = [value] if value else []
            group[key] = value
    return sections


def _takes_list(section: str, key: str) -> bool:
    """Whether a setting is a list, so that a single name may stand for a list of one."""
    group = Settings.model_fields.get(section)
    field = group.default.__class__.model_fields.get(key) if group else None
    return field is not None and field.annotation == list[str]


def _explain(error: ErrorDetails) -> str:
    """One sentence for the first thing that pydantic found wrong."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # of a whole section, or of several: it names its keys itself
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
