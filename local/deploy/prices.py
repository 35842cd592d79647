"""What AWS asks for what Huginn uses: one dated table, in US dollars, without the free tier."""

from typing import NamedTuple

AS_OF = "2026-11-22"
"""The day on which the table was written down, for the pages named to be compared with: not an offer."""

REGION = "us-east-1"
"""The region of these prices; others ask up to a quarter more."""

LAMBDA_PAGE = "aws.amazon.com/lambda/pricing"
CLOUDFRONT_PAGE = "aws.amazon.com/cloudfront/pricing"
CLOUDWATCH_PAGE = "aws.amazon.com/cloudwatch/pricing"
SQS_PAGE = "aws.amazon.com/sqs/pricing"
S3_PAGE = "aws.amazon.com/s3/pricing"
DYNAMODB_PAGE = "aws.amazon.com/dynamodb/pricing/on-demand"
SECRETS_PAGE = "aws.amazon.com/secrets-manager/pricing"
ECR_PAGE = "aws.amazon.com/ecr/pricing"


class Price(NamedTuple):
    """Dollars for one unit, and the page that says so."""

    usd: float
    unit: str
    source: str


LAMBDA_COMPUTE = Price(0.0000166667, "GB-second, x86", LAMBDA_PAGE)
LAMBDA_REQUEST = Price(0.20e-6, "request", LAMBDA_PAGE)
# Nothing for a response's first 6 MB.
LAMBDA_STREAMED = Price(0.008, "GB streamed", LAMBDA_PAGE)
# Python's snapshots are paid for, unlike Java's, for as long as a version is published.
SNAPSHOT_KEPT = Price(0.0000015046, "GB-second", LAMBDA_PAGE)
SNAPSHOT_RESTORED = Price(0.0001397998, "GB restored", LAMBDA_PAGE)
CLOUDFRONT_REQUEST = Price(0.01 / 10_000, "HTTPS request", CLOUDFRONT_PAGE)
CLOUDFRONT_OUT = Price(0.085, "GB to the internet", CLOUDFRONT_PAGE)
ALARM = Price(0.10, "alarm and month", CLOUDWATCH_PAGE)
METRIC = Price(0.30, "metric and month", CLOUDWATCH_PAGE)
LOGS = Price(0.50, "GB of logs", CLOUDWATCH_PAGE)
QUEUE_REQUEST = Price(0.40e-6, "request", SQS_PAGE)
S3_STORED = Price(0.023, "GB and month", S3_PAGE)
ECR_STORED = Price(0.10, "GB and month", ECR_PAGE)
TABLE_WRITE = Price(0.625e-6, "write of up to 1 KB", DYNAMODB_PAGE)
SECRET = Price(0.40, "secret and month", SECRETS_PAGE)

TABLE = {
    "Lambda, computing": LAMBDA_COMPUTE,
    "Lambda, requests": LAMBDA_REQUEST,
    "Lambda, streaming beyond 6 MB": LAMBDA_STREAMED,
    "SnapStart, snapshot kept": SNAPSHOT_KEPT,
    "SnapStart, restoring": SNAPSHOT_RESTORED,
    "CloudFront, requests": CLOUDFRONT_REQUEST,
    "CloudFront, data": CLOUDFRONT_OUT,
    "CloudWatch, alarms": ALARM,
    "CloudWatch, metrics": METRIC,
    "CloudWatch, logs": LOGS,
    "SQS, requests": QUEUE_REQUEST,
    "S3, storage": S3_STORED,
    "ECR, storage": ECR_STORED,
    "DynamoDB, writing": TABLE_WRITE,
    "Secrets Manager, secrets": SECRET,
}
