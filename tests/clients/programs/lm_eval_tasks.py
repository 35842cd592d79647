"""lm-evaluation-harness: evaluates the tasks of a folder over an API at an address; prints results and samples as JSON.

    lm_eval_tasks.py URL MODEL FOLDER NAME=VALUE...     more arguments of the model

As its own command does, but for the thousands of tasks that it brings, which take ten seconds to be looked through.
"""

import json
import sys
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

url, model, folder, *more = sys.argv[1:]
arguments = [f"model={model}", f"base_url={url}/v1/completions", "tokenizer_backend=remote", *more]
found = simple_evaluate(
    model="local-completions",
    model_args=",".join(arguments),
    tasks=sorted(path.stem for path in Path(folder).glob("*.yaml")),
    task_manager=TaskManager(include_path=folder, include_defaults=False),
    log_samples=True,
    bootstrap_iters=0,
)
print(json.dumps({"results": found["results"], "samples": found["samples"]}, default=str))
