"""llama.cpp's own server, in one process with what loads it: `BENCHMARK_FILE` is what `cold_start_files` wrote.

Its model is neither warmed up nor fitted to the memory there is: both come before the first token, and cost time.
"""

import os
import sys
from threading import Event

from xllamacpp import CommonParams, Server

PARAMS = CommonParams()
PARAMS.model.path = os.environ["BENCHMARK_FILE"]
PARAMS.port = int(sys.argv[sys.argv.index("--port") + 1])
PARAMS.n_parallel = 1
PARAMS.warmup = False
PARAMS.fit_params = False
PARAMS.ui = False
PARAMS.verbosity = 1  # errors

if __name__ == "__main__":
    SERVER = Server(PARAMS)  # listens in threads of its own, while it lives
    Event().wait()
