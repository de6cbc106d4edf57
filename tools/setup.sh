#!/usr/bin/env bash
# Install what a target of the Makefile needs: tools/setup.sh venv|runtime|dev|bench|notebook|s3|services
# The variable SPARK chooses the generation of Spark: 4.1, in .venv, or 3.5, in .venv-3.5.
# Each step leaves a stamp with the checksum of its input files, and runs again only when that checksum changes.
set -euo pipefail
cd -- "$(dirname "$0")/.." >/dev/null

PYTHON=${PYTHON:-python3}

fail() {
  echo "set-up: $1" >&2
  exit 1
}

SPARK=${SPARK:-4.1}
case $SPARK in
  4.1) VENV=.venv CONF=conf RUNTIME=runtime ;;
  3.5) VENV=.venv-3.5 CONF=$VENV/conf RUNTIME=runtime-3.5 ;;
  *) fail "SPARK is 4.1 or 3.5, not $SPARK" ;;
esac
LOG=$VENV/setup.log

fail_install() {
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|Network is unreachable|Temporary failure|ProxyError|Max retries exceeded' "$LOG"; then
    fail "the Python package index cannot be reached, and the first installation of $1 needs it; connect and try again (details: $LOG)"
  fi
  fail "$1 could not be installed; see $LOG"
}

# once STAMP FILE... -- COMMAND: run the command, unless it ran before with the same content of the files.
once() {
  local stamp=$VENV/stamps/$1 files=() sum
  shift
  while [ "$1" != -- ]; do files+=("$1"); shift; done
  shift
  sum=$(cat "${files[@]}" | cksum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return
  "$@"
  mkdir -p "$VENV/stamps"
  echo "$sum" >"$stamp"
}

make_venv() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed, but '$PYTHON' is older or missing. Name another: make PYTHON=python3.12 ..."
  [ "$SPARK" != 3.5 ] || "$PYTHON" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' ||
    fail "Spark 3.5 does not run on Python after 3.11, but '$PYTHON' is newer. Name another: make SPARK=3.5 PYTHON=python3.11 ..."
  echo "set-up: making $VENV"
  if ! "$PYTHON" -m venv --clear "$VENV"; then
    rm -rf "$VENV"
    fail "'$PYTHON -m venv' does not work; install its venv module (Debian: python3-venv)"
  fi
}

install_lock() {
  echo "set-up: installing $2 (the first time takes a minute or two)"
  "$VENV/bin/pip" install --require-hashes -r "requirements/$1.lock" >"$LOG" 2>&1 || fail_install "$2"
}

install_package() {
  "$VENV/bin/pip" install --no-deps --no-build-isolation -e . >"$LOG" 2>&1 || fail_install "movie-reco itself"
}

# Every command of Spark reads this script. pip's runs whatever PYSPARK_DRIVER_PYTHON names to find Spark, for example Jupyter.
replace_find_spark_home() {
  cat >"$VENV/bin/find-spark-home" <<'END'
#!/usr/bin/env bash
# Written by the set-up of movie-reco.
export SPARK_HOME=${SPARK_HOME:-$("$(dirname "$0")/python" "$(dirname "$0")/find_spark_home.py")}

# Spark splits this path at its blanks, and would not find the file.
case ${SPARK_CONF_DIR:-} in
  *[[:space:]]*)
    if [ -f "$SPARK_CONF_DIR/spark-env.sh" ]; then
      export SPARK_ENV_LOADED=1
      set -a
      case ${0##*/} in
        spark-submit) . "$SPARK_CONF_DIR/spark-env.sh" org.apache.spark.deploy.SparkSubmit "$@" ;;
        *) . "$SPARK_CONF_DIR/spark-env.sh" ;;
      esac
      set +a
    fi
    ;;
esac
END
}

# Write the settings for Spark 3.5: those of conf/, with the changes of conf/spark-3.5.sed.
derive_conf() {
  rm -rf "$CONF"
  mkdir -p "$CONF"
  cp -R conf/machine.sh conf/local conf/s3 conf/cluster "$CONF"
  local file
  for file in conf/{local,s3,cluster}/spark-defaults.conf; do
    sed -f conf/spark-3.5.sed "$file" >"$VENV/$file"
  done
}

has_fitting_java() {
  "${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | grep -qE 'version "(17|21)[."]'
}

has_browser() {
  command -v chromium || command -v chromium-browser || command -v google-chrome ||
    "$VENV/bin/python" -c 'import pathlib, sys; from playwright.sync_api import sync_playwright
with sync_playwright() as p: sys.exit(not pathlib.Path(p.chromium.executable_path).exists())'
} >/dev/null 2>&1

# Install the system's package where apt-get can, since it brings the libraries that the browser needs; else Playwright's build.
install_browser() {
  echo "set-up: installing Chromium, for the tests of the report"
  {
    [ "$(id -u)" = 0 ] && command -v apt-get && apt-get -q update &&
      DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends chromium fonts-liberation
  } >"$LOG" 2>&1 || "$VENV/bin/playwright" install chromium >>"$LOG" 2>&1 ||
    echo "set-up: Chromium could not be installed (details: $LOG); the tests that need a browser will be skipped" >&2
}

# with_ivy_lock COMMAND: run the command under a lock that all checkouts of this user share. Two programs that fetch jars at the
# same time break Ivy's cache, which is in the user's home folder. Where there is no flock, run the command without a lock.
with_ivy_lock() {
  local lock=~/.cache/movie-reco-ivy.lock
  if { command -v flock && mkdir -p "${lock%/*}" && : >>"$lock"; } >/dev/null 2>&1; then
    {
      flock -n 9 || { echo "set-up: waiting for another set-up, which fetches jars" && flock 9; } || true
      "$@" 9>&- # Java must not inherit the lock
    } 9>>"$lock"
  else
    "$@"
  fi
}

# Start Spark once, for which Ivy fetches the jars, and write their list for the audit: Ivy's folder has jars of other programs too.
start_spark() {
  SPARK_CONF_DIR=$CONF/$1 "$VENV/bin/python" -c 'import pathlib, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
pathlib.Path(sys.argv[1]).write_text(spark.sparkContext.getConf().get("spark.jars").replace(",", "\n"))
spark.stop()' "$VENV/jars-$1.txt" >"$LOG" 2>&1
}

fetch_jars() {
  echo "set-up: fetching the jars of $CONF/$1"
  with_ivy_lock start_spark "$1" && return
  # These errors also come from a program outside the lock that uses Ivy at the same time: a second attempt succeeds then.
  if grep -qE 'impossible to put metadata file in cache|download failed' "$LOG"; then
    with_ivy_lock start_spark "$1" && return
  fi
  if grep -qE 'unresolved dependency|download failed|UNRESOLVED|FAILED DOWNLOADS|impossible to put metadata file' "$LOG"; then
    if grep -qE 'Host [^ ]+ not found|UnknownHostException|ConnectException|NoRouteToHostException|SocketTimeoutException|SocketException|Network is unreachable' "$LOG"; then
      fail "Spark cannot fetch the jars of $CONF/$1: the Maven repository cannot be reached, and the first set-up needs it; connect and try again (details: $LOG)"
    fi
    fail "Spark cannot fetch the jars of $CONF/$1; see $LOG"
  fi
  fail "Spark does not start; see $LOG"
}

# Set up Spark 3.5 for the tests that start jobs as AWS does, and for the tests in which both generations share tables.
set_up_services() {
  local python
  for python in "$PYTHON" python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      SPARK=3.5 PYTHON=$python tools/setup.sh services
      return
    fi
  done
  echo "set-up: there is no Python 3.11, which Spark 3.5 needs; the tests that need Spark 3.5 will be skipped" >&2
}

[ -x "$VENV/bin/pip" ] || make_venv
[ "$1" != venv ] || exit 0
once runtime "requirements/$RUNTIME.lock" -- install_lock "$RUNTIME" "Spark and what the jobs need"
once find-spark-home "requirements/$RUNTIME.lock" tools/setup.sh -- replace_find_spark_home
[ "$1" != dev ] || once dev requirements/dev.lock -- install_lock dev "the tools for tests"
[ "$1" != dev ] && [ "$1" != s3 ] || once s3 requirements/s3.lock -- install_lock s3 "an S3 server"
[ "$1" != notebook ] || once notebook requirements/notebook.lock -- install_lock notebook "Jupyter"
[ "$1" != bench ] || once bench requirements/bench.lock -- install_lock bench "the libraries of the benchmarks, some of which need a C compiler"
once package pyproject.toml -- install_package
[ "$1" != dev ] || has_browser || install_browser
has_fitting_java || once java requirements/java.lock -- install_lock java "a Java for this checkout, since there is no Java 17 or 21"
[ "$CONF" = conf ] || once conf conf/spark-3.5.sed conf/machine.sh conf/{local,s3,cluster}/*.* conf/local/java/bin/java -- derive_conf
confs=("$(basename "${SPARK_CONF_DIR:-local}")")
[ "$1" != dev ] && [ "$1" != services ] || confs=(local s3)
for conf in "${confs[@]}"; do
  once "jars-of-$conf" "requirements/$RUNTIME.lock" "$CONF/$conf/spark-defaults.conf" -- fetch_jars "$conf"
done
# The jars of YARN, for the tests that start jobs as AWS does.
[ "$1" != services ] || CONF=tests/aws once jars-of-yarn tests/aws/yarn/spark-defaults.conf -- fetch_jars yarn
[ "$1" != dev ] || set_up_services
