"""ALS with the interface of `pyspark.ml.recommendation.ALS`, solved by our own solver.

A user of MLlib changes an import. `Pipeline`, `CrossValidator` and `ParamGridBuilder` work; a model that is saved is
read by MLlib's `ALSModel.load`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyspark.ml import Estimator, Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasTol
from pyspark.ml.recommendation import _ALSModelParams, _ALSParams
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable, MLWritable, MLWriter
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_app.model import mllib, solver
from spark_app.model.factors import Factors, as_factors, as_solution, with_prediction
from spark_app.model.half_sweep import Preference, Problem, Ridge, SquaredError
from spark_app.model.rating_blocks import RatingBlocks, mean_of, pack

OF_MLLIB_ALONE = (
    *("numUserBlocks", "numItemBlocks", "nonnegative", "checkpointInterval"),
    *("intermediateStorageLevel", "finalStorageLevel"),
)
"""Parameters that mean nothing here; `nonnegative` is refused."""

SEED = 42


def _setter(name: str) -> Callable[[ALS, Any], ALS]:
    """The method `setName` of a parameter."""

    def set_value(als: ALS, value: Any) -> ALS:
        return als.setParams(**{name: value})

    set_value.__doc__ = f"Set the value of `{name}`."
    return set_value


class ALS(Estimator["FactorModel"], _ALSParams, HasTol, DefaultParamsReadable["ALS"], DefaultParamsWritable):
    """Alternating least squares matrix factorisation of ratings, or of implicit preferences.

    Approximates ratings by the product of factors of users and of items (Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan:
    Large-scale Parallel Collaborative Filtering for the Netflix Prize, 2008), or, with `implicitPrefs`, holds
    preferences with confidence (Y. Hu, Y. Koren, C. Volinsky: Collaborative Filtering for Implicit Feedback Datasets,
    ICDM 2008): a rating above 0 is a like, one below 0 a dislike, and alpha times its size the confidence.

    Takes the parameters of `pyspark.ml.recommendation.ALS`, with its names and defaults, but for the seed, which is
    SEED. Those that say how MLlib shuffles and stores (OF_MLLIB_ALONE) mean nothing here. There are four more:

    - `cgSteps`: steps of conjugate gradients in a half sweep (default 3). 0 solves exactly, as MLlib does.
    - `regPower`: regularisation is regParam times the number of ratings of a user or item to this power (default 1,
      as in MLlib).
    - `biases`: fit biases with the factors, which have two columns more then (default False; explicit only).
    - `tol`: fitting ends after a sweep that lowers the objective by no more than this share of it (default 0).

    The factors of both sides are broadcast, so they must fit in memory. The result depends on ratings, parameters and
    seed alone, neither on the order or partitions of the rows nor on the cores.

        als = ALS(rank=10, maxIter=8, regParam=0.1, userCol="userId", itemCol="movieId", coldStartStrategy="drop")
        als.fit(ratings).transform(pairs).select("userId", "movieId", "prediction")
    """

    cgSteps: Param[int] = Param(
        Params._dummy(),
        "cgSteps",
        "steps of conjugate gradients in a half sweep (>= 0); 0 solves exactly",
        typeConverter=TypeConverters.toInt,
    )
    regPower: Param[float] = Param(
        Params._dummy(),
        "regPower",
        "regularisation is regParam times the number of ratings to this power, from 0 to 1",
        typeConverter=TypeConverters.toFloat,
    )
    biases: Param[bool] = Param(
        Params._dummy(),
        "biases",
        "whether to fit biases with the factors; explicit feedback only",
        typeConverter=TypeConverters.toBoolean,
    )

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(cgSteps=solver.CG_STEPS, regPower=1.0, biases=False, tol=0.0, seed=SEED)
        self.start: Factors | None = None
        self.setParams(**params)

    def setParams(self, **params: Any) -> ALS:
        """Set parameters by their names. Raises ValueError for a name that is none."""
        if unknown := [name for name in params if not self.hasParam(name)]:
            raise ValueError(f"ALS has no parameter {', '.join(unknown)}")
        return self._set(**params)

    setRank, setMaxIter, setRegParam = _setter("rank"), _setter("maxIter"), _setter("regParam")
    setImplicitPrefs, setAlpha, setSeed = _setter("implicitPrefs"), _setter("alpha"), _setter("seed")
    setUserCol, setItemCol, setRatingCol = _setter("userCol"), _setter("itemCol"), _setter("ratingCol")
    setPredictionCol, setColdStartStrategy = _setter("predictionCol"), _setter("coldStartStrategy")
    setCgSteps, setRegPower, setBiases, setTol = (_setter(name) for name in ("cgSteps", "regPower", "biases", "tol"))
    setBlockSize, setNonnegative = _setter("blockSize"), _setter("nonnegative")
    setNumUserBlocks, setNumItemBlocks = _setter("numUserBlocks"), _setter("numItemBlocks")
    setCheckpointInterval = _setter("checkpointInterval")
    setIntermediateStorageLevel = _setter("intermediateStorageLevel")
    setFinalStorageLevel = _setter("finalStorageLevel")

    def startFrom(self, factors: Factors | None) -> ALS:
        """Start the next fits from the factors of another one of the same rank (`FactorModel.factors`)."""
        self.start = factors
        return self

    def _fit(self, dataset: DataFrame) -> FactorModel:
        if self.getNonnegative():
            raise ValueError("nonnegative factors are not supported: use pyspark.ml.recommendation.ALS")
        if self.getImplicitPrefs() and self.getOrDefault(self.biases):
            raise ValueError("biases are for explicit feedback: set implicitPrefs or biases to False")
        blocks = pack(self._ratings(dataset))
        if not blocks.count:
            raise ValueError("there are no ratings to fit to")
        problem = self._problem(blocks)
        options = solver.Options(
            self.getRank(),
            self.getMaxIter(),
            self.getOrDefault(self.seed) % 2**32,
            steps=self.getOrDefault(self.cgSteps),
            last_steps=solver.LAST_STEPS if self.getOrDefault(self.cgSteps) else solver.EXACT,
            tolerance=self.getOrDefault(self.tol),
        )
        start = None if self.start is None else as_solution(self.start, problem)
        solution = solver.fit(blocks, problem, options, start)
        blocks.unpersist()
        model = FactorModel(as_factors(solution, problem, dataset.sparkSession), solution.objective)
        return self._copyValues(model)

    def _ratings(self, dataset: DataFrame) -> DataFrame:
        name = self.getRatingCol()
        rating = F.col(name).cast("float") if name else F.lit(1.0)
        ids = {"userId": self.getUserCol(), "movieId": self.getItemCol()}
        return dataset.select(*(_as_id(column).alias(alias) for alias, column in ids.items()), rating.alias("rating"))

    def _problem(self, blocks: RatingBlocks) -> Problem:
        ridge = Ridge(self.getRegParam(), self.getOrDefault(self.regPower))
        if self.getImplicitPrefs():
            return Problem(Preference(self.getAlpha()), ridge)
        return Problem(SquaredError(), ridge, mean_of(blocks) if self.getOrDefault(self.biases) else None)


class FactorModel(Model, _ALSModelParams, MLWritable):
    """What `ALS` has fitted: factors of users and items, and the objective after each sweep.

    `save` writes them so that `pyspark.ml.recommendation.ALSModel.load` reads them.
    """

    def __init__(self, factors: Factors, objective: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.factors = factors
        self.objective = objective

    @property
    def rank(self) -> int:
        """The columns of the factors: with biases two more than were asked for."""
        return self.factors.rank

    @property
    def userFactors(self) -> DataFrame:
        """The factors of users: id, features."""
        return self.factors.users

    @property
    def itemFactors(self) -> DataFrame:
        """The factors of items: id, features."""
        return self.factors.movies

    def _transform(self, dataset: DataFrame) -> DataFrame:
        """Add the prediction. Unknown users and items have NaN, or are dropped: `coldStartStrategy`."""
        ids = {"userId": self.getUserCol(), "movieId": self.getItemCol()}
        pairs = dataset.select(
            F.struct("*").alias("row"), *(_as_id(column).alias(alias) for alias, column in ids.items())
        )
        name = self.getPredictionCol()
        predicted = with_prediction(pairs, self.factors, "prediction").select("row.*", F.col("prediction").alias(name))
        return predicted.filter(~F.isnan(name)) if self.getColdStartStrategy() == "drop" else predicted

    def write(self) -> MLWriter:
        """What writes the model."""
        return _Writer(self)


class _Writer(MLWriter):
    def __init__(self, model: FactorModel) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        """Write in MLlib's format."""
        model = self.model
        mllib.save(model.factors, path, {param.name: value for param, value in model.extractParamMap().items()})


def _as_id(column: str) -> Column:
    """A column as 32-bit integers. Fails, when it is computed, on what is none."""
    given = F.col(column)
    whole = given.cast("int")
    is_id = given.isNotNull() & (given == whole)
    return F.when(is_id, whole).otherwise(
        F.raise_error(
            F.concat(F.lit(f"{column} is no 32-bit integer: "), F.coalesce(given.cast("string"), F.lit("null")))
        )
    )
