"""A server that speaks S3 for tests: moto's, in memory, which checks keys, signatures and rights when asked to.

What it lacks: it takes what it is sent without looking at Content-MD5 or x-amz-checksum-*; a pre-signed URL never
expires; and with keys checked it cannot handle pre-signed URLs at all.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests

from tests.components import PATIENCE, environment_of_the_suite, running_daemon

REGION = "us-east-1"
# The owner of the keys may do everything, but nothing in the bucket "locked".
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"},
        {"Effect": "Deny", "Action": ["s3:*"], "Resource": "arn:aws:s3:::locked/*"},
    ],
}


@dataclass(frozen=True)
class S3:
    """A server that answers. url: the endpoint. It has the buckets `bucket` and `locked`."""

    port: int
    access_key: str
    secret_key: str
    bucket: str = "bucket"
    locked: str = "locked"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What boto3 reads."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def s3(self, name: str, bucket: str | None = None) -> str:
        """URL of a file as a catalogue has it."""
        return f"s3://127.0.0.1:{self.port}/{bucket or self.bucket}/{name}"

    @contextmanager
    def client(self, kind: str = "s3") -> Iterator[Any]:
        """A client of boto3 with the keys; its connections end with the block."""
        client = boto3.client(
            kind, endpoint_url=self.url, region_name=REGION, aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )  # fmt: skip
        try:
            yield client
        finally:
            client.close()

    def put(self, name: str, contents: bytes) -> None:
        """A file in the bucket."""
        with self.client() as client:
            client.put_object(Bucket=self.bucket, Key=name, Body=contents)

    def get(self, name: str) -> bytes:
        """What a file in the bucket contains."""
        with self.client() as client:
            body: bytes = client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
            return body

    def files(self) -> list[str]:
        """The names of all files in the bucket."""
        with self.client() as client:
            return [item["Key"] for item in client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def signed(self, method: str, name: str, seconds: int = 600) -> str:
        """A pre-signed URL for GET or PUT."""
        with self.client() as client:
            url: str = client.generate_presigned_url(
                f"{method.lower()}_object", {"Bucket": self.bucket, "Key": name}, ExpiresIn=seconds
            )
            return url


def require_s3() -> None:
    """Skip where the server's environment is not there, and fail where CI=true promises that it is."""
    environment_of_the_suite("object-stores")


@contextmanager
def running_s3(*, checks_keys: bool = True) -> Iterator[S3]:
    """A server for the time of a block, in half a second.

    checks_keys: refuse wrong keys and what the policy forbids, as a real one does; else the server takes any keys,
    and pre-signed URLs.
    """
    python = environment_of_the_suite("object-stores") / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="pilotkit-s3-", dir="/tmp") as folder:

        def command(port: int) -> list[str]:
            return [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

        with running_daemon("S3", command, Path(folder)) as port:
            server = _with_keys(S3(port, "nobody", "nothing"))
            if checks_keys:
                with requests.Session() as session:
                    session.trust_env = False
                    # After so many more requests without a check; moto's own interface for tests.
                    session.post(f"{server.url}/moto-api/reset-auth", data=b"0", timeout=PATIENCE).raise_for_status()
            yield server


def _with_keys(server: S3) -> S3:
    with server.client("iam") as iam:
        iam.create_user(UserName="tester")
        keys = iam.create_access_key(UserName="tester")["AccessKey"]
        iam.put_user_policy(UserName="tester", PolicyName="most", PolicyDocument=json.dumps(_POLICY))
    with server.client() as client:
        for bucket in (server.bucket, server.locked):
            client.create_bucket(Bucket=bucket)
    return S3(server.port, keys["AccessKeyId"], keys["SecretAccessKey"])
