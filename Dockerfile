# The jobs in a container: Python, Java, the locked packages and the jars, without a checkout and not as root.
#   docker build -t movie-reco .
#   docker run --rm -v "$PWD/raw:/raw" -v "$PWD/results:/results" movie-reco pipeline --raw-path /raw --processed-path /results
# docs/machines.md says more.
FROM python:3.11-slim-bookworm

# libnss-wrapper gives any user of `docker run --user` the entry in /etc/passwd that Java asks for.
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless libnss-wrapper \
 && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/movie-reco/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/movie-reco

WORKDIR /build
COPY requirements/runtime.lock requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/runtime.lock

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY conf conf
COPY spark_app spark_app
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# The jars go among Spark's own, so that a container fetches nothing when it starts.
WORKDIR /
RUN SPARK_CONF_DIR=/build/conf/s3 python -c 'from pyspark.sql import SparkSession; SparkSession.builder.getOrCreate().stop()' \
 && cp ~root/.ivy2.5.2/jars/*.jar "$(python -c 'import pyspark; print(pyspark.__path__[0])')/jars/" \
 && sed -i '/^spark\.jars\./d' "$(python -c 'import spark_app; print(spark_app.__path__[0])')"/conf/4.1/*/spark-defaults.conf \
 && rm -rf ~root/.ivy2.5.2/* /build

# Anyone may run jobs here: the metastore of a run lies in this folder.
WORKDIR /work
RUN useradd --uid 10001 --gid 0 --create-home movie-reco && chmod 1777 /work
USER 10001
ENTRYPOINT ["movie-reco"]
CMD ["--help"]
