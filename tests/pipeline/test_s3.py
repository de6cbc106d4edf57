"""All stages on a real S3 server, by spark-submit as users run them."""

from __future__ import annotations

import pytest

from spark_app.cli import run_job
from spark_app.platform import s3, storage
from spark_app.stages.pipeline import STAGES
from spark_app.zones import published
from spark_app.zones.processed import ProcessedZone
from tests.conftest import BUCKET, FEW
from tests.pipeline.conftest import Submit, Zones
from tests.platform.test_packed import zipped
from tools.s3_server import S3Server

pytestmark = pytest.mark.long


def test_each_stage_gives_in_s3_what_the_pipeline_gives_on_a_disk(
    zones: Zones, in_s3: str, s3_server: S3Server, submit: Submit, config: str
) -> None:
    assert run_job("pipeline", zones.options("--config", config)) == 0
    storage.write_text(f"{in_s3}/conf/small.toml", FEW)
    for stage in STAGES:
        # Both schemes, since some tools write s3:// and some s3a://.
        scheme, other = ("s3", "s3a") if stage.name in ("ingest", "train") else ("s3a", "s3")
        raw, processed = (f"{in_s3}/{zone}".replace("s3://", f"{scheme}://") for zone in ("raw", "processed"))
        options = ["--config", f"{in_s3}/conf/small.toml".replace("s3://", f"{other}://")]
        done = submit(stage.name, "--raw-path", raw, "--processed-path", processed, *options, conf="s3")
        assert done.returncode == 0, done.stdout[-3000:]
        assert s3_server.owner.secret not in done.stdout + done.stderr

    zone, on_disk = ProcessedZone(f"{in_s3}/processed"), ProcessedZone(str(zones.processed))
    assert storage.read_text(zone.recommendations_csv) == storage.read_text(on_disk.recommendations_csv)
    of_a_run = dict.fromkeys(("run_id", "recommended_at"))
    assert published.user(zone, "1") | of_a_run == published.user(on_disk, "1") | of_a_run
    assert published.movie(zone, "1") == published.movie(on_disk, "1")
    manifests = [storage.read_json(path) for path in storage.list_files(zone.runs)]
    assert {noted["path"] for noted in manifests[1]["inputs"]} == {
        f"{in_s3}/raw/movies.csv",
        f"{in_s3}/raw/ratings.csv",
    }
    assert [manifest["status"] for manifest in manifests] == ["done"] * len(STAGES)
    # Temporary files of the runs are gone, and so are unfinished uploads.
    left = s3_server.client().list_objects_v2(Bucket=BUCKET, Prefix=s3.split(f"{zone.root}/_")[1])
    assert left.get("Contents", []) == []  # `_lock.json`, `_staging/`
    assert not s3_server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_files_that_spark_cannot_cut_are_read_from_s3_too(in_s3: str, s3_server: S3Server, submit: Submit) -> None:
    movies = 'movieId,title,genres\r\n1,"Heat\r\n(1995)",Action\r\n2,Caf\u00e9,Drama\r\n'
    deliver(f"{in_s3}/raw/movies.csv.zip", zipped({"ml/movies.csv": movies.encode("utf-16")}))
    deliver(f"{in_s3}/raw/ratings/a b%20#.txt", b"1:\n7,4,2005-09-06\n8,5,2005-05-13\n2:\n7,3.5,2005-10-19\nbad\n")
    options = ["--set", "ratings_file.layout=netflix", "--set", "input.time_format=iso"]
    zones = ["--raw-path", f"{in_s3}/raw", "--processed-path", f"{in_s3}/processed"]
    done = submit("etl", *zones, *options, "--set", "clean.max_reject_share=0.5", conf="s3")
    assert done.returncode == 0, done.stdout[-3000:]
    zone = ProcessedZone(f"{in_s3}/processed")
    (manifest,) = (storage.read_json(path) for path in storage.list_files(zone.runs))
    assert manifest["rows"]["movies"]["good"] == 2
    assert manifest["rows"]["ratings"] == {"in": 4, "good": 3, "rejected": 1, "superseded": 0}
    (reject,) = zone.rows("rejects").to_pylist()
    assert (reject["file"], reject["raw"]) == (f"{in_s3}/raw/ratings/a b%20#.txt", "2,bad")
    assert published.movie(zone, "1")["title"] == "Heat\r\n(1995)"


def deliver(path: str, content: bytes) -> None:
    with storage.writing(path) as stream:
        stream.write(content)
