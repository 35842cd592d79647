"""inspect-ai: evaluates a small task over an API at an address; prints its result and its log's answers as JSON.

inspect_task.py URL MODEL ANSWER        what is expected of the model after "ROMEO:"
"""

import json
import sys

from inspect_ai import Task, eval  # noqa: A004
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import exact, includes
from inspect_ai.solver import generate

url, model, expected = sys.argv[1:]
served = get_model(
    f"openai-api/huginn/{model}",
    base_url=f"{url}/v1",
    api_key="none",
    config=GenerateConfig(max_tokens=40, temperature=0, max_retries=0),
)
task = Task(
    name="ravens",
    dataset=[Sample(input="ROMEO:", target=expected), Sample(input="ROMEO:", target="no play has this: xqzj")],
    solver=generate(),
    scorer=[includes(), exact()],
)
[log] = eval(task, model=served, display="none", log_dir="logs", log_format="json", score_display=False)
# A character is a token to the bundled model.
too_long = Task(dataset=[Sample(input="a" * 40_000), Sample(input="a" * 100_001)], solver=generate())
[refused] = eval(too_long, model=served, display="none", log_dir="logs", log_format="json", score_display=False)
print(
    json.dumps(
        {
            "status": log.status,
            "error": log.error.message if log.error else None,
            "accuracy": log.results.scores[0].metrics["accuracy"].value if log.results else None,
            "answers": [sample.output.completion for sample in log.samples or []],
            "too_long": [sample.output.stop_reason for sample in refused.samples or []],
            "usage": [usage.model_dump() for usage in log.stats.model_usage.values()],
        }
    )
)
