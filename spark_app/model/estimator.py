"""An ALS estimator with the interface of `pyspark.ml.recommendation.ALS`, solved by our own solver.

Code that uses MLlib's ALS only has to change the import. The estimator works in `Pipeline`, `CrossValidator` and with
`ParamGridBuilder`. MLlib's `ALSModel.load` reads the models that it saves.
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
"""Parameters of MLlib that have no effect here. `nonnegative=True` is rejected."""

SEED = 42


def _setter(name: str) -> Callable[[ALS, Any], ALS]:
    """Make the setter method of the parameter `name`."""

    def set_value(als: ALS, value: Any) -> ALS:
        return als.setParams(**{name: value})

    set_value.__doc__ = f"Set the value of `{name}`."
    return set_value


class ALS(Estimator["FactorModel"], _ALSParams, HasTol, DefaultParamsReadable["ALS"], DefaultParamsWritable):
    """Alternating least squares (ALS) matrix factorisation.

    ALS approximates the ratings matrix R by the product X Y' of two matrices of lower rank: the factors of the users
    and of the items. It is iterative. Each sweep solves for the item factors by regularised least squares with the user
    factors fixed, then for the user factors with the item factors fixed.

    For explicit ratings the method is that of Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan: Large-scale Parallel
    Collaborative Filtering for the Netflix Prize, 2008. With `implicitPrefs` it is that of Y. Hu, Y. Koren, C.
    Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008: R is then a matrix of preferences
    instead of ratings. A rating above 0 is a like, a rating below 0 a dislike, and alpha times its size is the
    confidence in it.

    Parameters, defaults and column names are those of `pyspark.ml.recommendation.ALS`, except that the default seed is
    SEED. The parameters in OF_MLLIB_ALONE control how MLlib shuffles and stores, and have no effect here. Four
    parameters are new:

    - `cgSteps`: number of steps of conjugate gradients in a half sweep (>= 0, default 3). 0 solves exactly, as MLlib
      does.
    - `regPower`: the regularisation of a user or item is regParam times its number of ratings to this power (from 0 to
      1, default 1, as in MLlib).
    - `biases`: fit biases together with the factors, which then have two more columns (explicit ratings only, default
      False).
    - `tol`: fitting ends after a sweep that lowers the objective by no more than this share (default 0).

    `fit` raises ValueError if there are no ratings, or for `nonnegative=True`, or for `biases` with `implicitPrefs`. It
    fails if an id is not a 32-bit integer.

    Notes: The input should be deterministic, because `fit` reads it twice. The model depends only on ratings,
    parameters and seed, not on the order or partitions of the rows or the number of cores. The factors of users and
    items are broadcast, so both must fit into the memory of the driver and of every task.

    Example:
        als = ALS(rank=10, maxIter=8, regParam=0.1, userCol="userId", itemCol="movieId", coldStartStrategy="drop")
        model = als.fit(ratings)  # userId, movieId, rating
        model.transform(pairs).select("userId", "movieId", "prediction")
        model.save("als-model")  # pyspark.ml.recommendation.ALSModel.load reads it

    """

    cgSteps: Param[int] = Param(
        Params._dummy(),
        "cgSteps",
        "number of steps of conjugate gradients in a half sweep (>= 0); 0 solves exactly",
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
        """Set parameters by name. Raises ValueError for an unknown name."""
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
        """Start later fits from these factors (`FactorModel.factors`) of the same rank; None means random factors."""
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
    """The model that `ALS.fit` returns: factors of users and items, and the objective after each sweep.

    `transform` adds predictions. `save` writes a folder that `pyspark.ml.recommendation.ALSModel.load` reads.
    """

    def __init__(self, factors: Factors, objective: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.factors = factors
        self.objective = objective

    @property
    def rank(self) -> int:
        """The number of columns of the factors: with biases, two more than the parameter `rank`."""
        return self.factors.rank

    @property
    def userFactors(self) -> DataFrame:
        """The factors of the users: a frame(id, features)."""
        return self.factors.users

    @property
    def itemFactors(self) -> DataFrame:
        """The factors of the items: a frame(id, features)."""
        return self.factors.movies

    def _transform(self, dataset: DataFrame) -> DataFrame:
        """Add the prediction. `coldStartStrategy` decides whether unknown users and items get NaN or are dropped."""
        ids = {"userId": self.getUserCol(), "movieId": self.getItemCol()}
        pairs = dataset.select(
            F.struct("*").alias("row"), *(_as_id(column).alias(alias) for alias, column in ids.items())
        )
        name = self.getPredictionCol()
        predicted = with_prediction(pairs, self.factors, "prediction").select("row.*", F.col("prediction").alias(name))
        return predicted.filter(~F.isnan(name)) if self.getColdStartStrategy() == "drop" else predicted

    def write(self) -> MLWriter:
        """Return a writer for the model, in MLlib's format."""
        return _Writer(self)


class _Writer(MLWriter):
    def __init__(self, model: FactorModel) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        """Write the model in MLlib's format."""
        model = self.model
        mllib.save(model.factors, path, {param.name: value for param, value in model.extractParamMap().items()})


def _as_id(column: str) -> Column:
    """Convert a column to 32-bit integers. Computing it fails on a value that is not a 32-bit integer."""
    value = F.col(column)
    as_integer = value.cast("int")
    is_id = value.isNotNull() & (value == as_integer)
    return F.when(is_id, as_integer).otherwise(
        F.raise_error(
            F.concat(F.lit(f"{column} is not a 32-bit integer: "), F.coalesce(value.cast("string"), F.lit("null")))
        )
    )
