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

# All is on this machine, whether or not its name resolves, and whatever Hadoop was set up for here.
SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
unset HADOOP_CONF_DIR YARN_CONF_DIR

. "$SPARK_CONF_DIR/../machine.sh"
