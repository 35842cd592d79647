"""Runs any ASGI app on AWS Lambda so that its responses stream.

`python -m functions.runtime module.app` speaks Lambda's Runtime API itself: what the app sends is on its way to the
client when `send` returns. The standard library, and Mangum to read the events, is all that it needs.
"""
