"""Creates the bucket for inputs and results by the connection aws_default: ``python -m demo.bucket NAME``."""

from __future__ import annotations

import sys

from airflow.providers.amazon.aws.hooks.s3 import S3Hook


def main(name: str) -> None:
    hook = S3Hook(aws_conn_id="aws_default")
    if not hook.check_for_bucket(name):
        hook.create_bucket(bucket_name=name)
    print(f"s3://aws_default@{name}/ is ready")


if __name__ == "__main__":
    main(sys.argv[1])
