# Every Spark command reads this file if SPARK_CONF_DIR names its folder.

# The path must be absolute: Spark's own scripts change folders.
SPARK_CONF_DIR=$(cd -P -- "$(dirname "${BASH_SOURCE[0]}")" >/dev/null && pwd)

# File names are UTF-8. In another locale Java would read them as ASCII.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
  *[Uu][Tt][Ff]*8) ;;
  *) LC_ALL=C.UTF-8 ;;
esac

# Small fits run on the driver: with one thread they give the same digits on any machine, as in Spark's tasks.
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

. "$SPARK_CONF_DIR/../machine.sh"
