# make            lists the targets
# make demo       runs the whole pipeline on MovieLens and shows the results
# make test       runs the tests
# Both install what they need: a .venv, Java where neither 17 nor 21 is installed, and the jars of Spark.
# With SPARK=3.5 any target runs on Spark 3.5 instead of 4.1: in .venv-3.5, with the settings that Spark 3.5 supports.

SHELL := /bin/bash
PYTHON ?= python3
SPARK ?= 4.1
CONFIG ?= conf/pipeline.toml
OPTIONS ?=
SCALE ?= 1m
STAGES := ingest catalog etl explore train recommend

ifeq ($(SPARK),4.1)
VENV := .venv
CONF := conf
else ifeq ($(SPARK),3.5)
VENV := .venv-3.5
CONF := $(VENV)/conf
else
$(error SPARK is 4.1 or 3.5, not $(SPARK))
endif

# Variables that another Spark, Python or Hadoop has left would change what runs here.
unexport SPARK_HOME SPARK_REMOTE SPARK_DIST_CLASSPATH SPARK_ENV_LOADED HADOOP_CONF_DIR YARN_CONF_DIR CDPATH
unexport PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS PYSPARK_SUBMIT_ARGS PYTHONPATH PYTHONHOME PYTHONSTARTUP

# Recipes take these from the environment, so that a path may hold any letters.
export PYTHON SPARK CONFIG RAW PROCESSED SOURCE
# Spark's scripts split the path of this folder at blanks, so where it has some the path must be relative.
export SPARK_CONF_DIR := $(if $(word 2,$(CURDIR)),,$(CURDIR)/)$(CONF)/$(if $(filter s3://% s3a://%,$(RAW) $(PROCESSED)),s3,local)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

comma := ,
# The folder that MOVIELENS_DIR names; otherwise the first available of a copy beside the checkout, a download, the generator.
export DEMO_SOURCE := $(if $(MOVIELENS_DIR),["$(MOVIELENS_DIR)"],["../shared/data/ml-latest-small"$(comma)"ml-latest-small"$(comma)"synthetic"])

# Hides what Spark prints about its jars at each start, which does not help a user. Everything else passes.
SUBMIT := quiet() { spark-submit "$$@" 2> >(grep --line-buffered -vE \
  '^(WARNING: Using incubator|:: |Ivy Default|The jars for|[a-z.]+\#.* added as a dep|	(confs:|found |::|-+$$|\||[a-z.]+\#.* (by|from [a-z-]+ in) \[|[0-9]+ artifacts))' >&2); }; quiet

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo demo-s3 check notebook package bench bench-quality test test-all soak lint audit settings format lock clean pipeline tune maintain $(STAGES)

help: ## list the targets
	@grep -hE '^[a-z$$].*:.*## ' $(MAKEFILE_LIST) | sed -E 's/\$$\(STAGES\) pipeline tune maintain/STAGE/; s/:[^#]*## /\t/' | expand -t 16
	@echo; echo "STAGE is one of: $(STAGES) pipeline tune maintain"
	@echo "With SPARK=3.5 any of them runs on Spark 3.5 and Delta 3.3 instead of Spark 4.1 and Delta 4.2"

setup: ## install everything that the jobs need
	@tools/setup.sh runtime

setup-dev: ## install everything that the jobs and the tests need
	@tools/setup.sh dev

demo: setup ## run the pipeline on MovieLens ml-latest-small and show the results
	@$(SUBMIT) jobs/pipeline.py --config "$$CONFIG" --raw-path demo/raw --processed-path demo/processed \
	  --set "ingest.source=$$DEMO_SOURCE" $(OPTIONS)

demo-s3: ## run the demo on S3: a SeaweedFS server on this machine, buckets raw and processed, all stages on s3:// paths
	@SPARK_CONF_DIR=$(CONF)/s3 tools/setup.sh s3
	@python tools/s3_server.py demo/s3 raw processed -- $(MAKE) --no-print-directory pipeline \
	  RAW=s3://raw/movielens PROCESSED=s3://processed/movie-reco SOURCE="$$DEMO_SOURCE"
	@echo "The server has stopped; its data stays in demo/s3. This starts it again while a command runs:"
	@echo "  .venv/bin/python tools/s3_server.py demo/s3 -- .venv/bin/python -m spark_app show --processed-path s3://processed/movie-reco --user 1"
	@echo "With bash as the command, the server runs, and its keys are in the environment, until you leave bash."

$(STAGES) pipeline tune maintain: setup ## run one stage, or all: make STAGE RAW=... PROCESSED=... [SOURCE=...] [OPTIONS=...]
	@$(SUBMIT) jobs/$@.py --config "$$CONFIG" $${RAW:+--raw-path "$$RAW"} $${PROCESSED:+--processed-path "$$PROCESSED"} \
	  $${SOURCE:+--set "ingest.source=$$SOURCE"} $(OPTIONS)

check: setup ## propose settings for the files of a raw folder: make check RAW=...
	@python -m spark_app check '$(RAW)'

notebook: ## open the notebook on the results of the demo, or of a run with PROCESSED=...
	@tools/setup.sh notebook
	@processed=$${PROCESSED:-demo/processed}; case $$processed in *://* | /*) ;; *) processed=$$PWD/$$processed ;; esac; \
	  MOVIE_RECO_PROCESSED=$$processed jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) notebooks/explore.ipynb

package: setup ## pack the code for spark-submit --py-files on a cluster: dist/movie_reco.zip
	@python tools/package.py dist/movie_reco.zip

bench: ## time each stage beside other tools: make bench [SCALE="1m 5m 25m"] [OPTIONS="--only etl topn"]; writes benchmarks/results/
	@tools/setup.sh bench
	@python -m benchmarks.scale $(SCALE) $(OPTIONS)

bench-quality: ## compare the models with other libraries' on MovieLens; writes benchmarks/results/
	@tools/setup.sh bench
	@python -m benchmarks.quality $(OPTIONS)

# Two files at a time; those of whole jobs begin.
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup-dev ## run the tests; those of `make test-all` apart
	@$(PYTEST) -m 'not long'

test-all: test ## run the long tests too, or those in LONG=...: kills, faults, clusters, starts as on AWS, Spark 3.5, upkeep
	@$(PYTEST) -m long $(LONG)

soak: setup-dev ## run the long form of tests/reliability: more kills, runs and rows, for an hour
	@MOVIE_RECO_SOAK=1 pytest tests/reliability

lint: setup-dev ## check format, style, types, the direction of imports, dependencies, and the links in docs/
	@ruff format --check . && ruff check . && mypy && lint-imports && deptry . && python -m tools.docs

audit: setup-dev ## look up known vulnerabilities and licences of all packages and jars
	@python -m tools.audit

settings: setup ## write conf/pipeline.toml from the settings and their docstrings
	@python -m tools.settings_toml

format: setup-dev ## format the code
	@ruff check --fix . ; ruff format .

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate -q
# Packages that both generations need have the same version in both locks, so that the other locks fit both.
BOTH := grep -oE '^[a-z0-9._-]+==[^ ]+( ; [^\\]+)?' requirements/runtime.lock | grep -vE '^(pyspark|py4j|delta-spark)=='

lock: ## resolve the dependencies again and write them to requirements/
	@tools/setup.sh venv && pip install -q uv
	@$(LOCK) pyproject.toml --group build --group spark -o requirements/runtime.lock
	@$(BOTH) | $(LOCK) pyproject.toml --group build --group spark-3.5 -c - -o requirements/runtime-3.5.lock
	@for group in dev bench notebook s3 java; do \
	  $(LOCK) --group $$group $$([[ $$group = dev || $$group = bench || $$group = notebook ]] && echo "-c requirements/runtime.lock") \
	    $$([ $$group = notebook ] && echo "-c requirements/dev.lock") -o requirements/$$group.lock; done
	@python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["mlflow"])' | \
	  $(LOCK) - -c requirements/runtime.lock -o requirements/mlflow.lock

clean: ## remove everything that set-up, demo, benchmarks and tests made
	@rm -rf .venv .venv-3.5 demo dist bench metastore .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
