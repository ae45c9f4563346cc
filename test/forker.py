# SPDX-License-Identifier: Apache-2.0
"""Loads depth_bag once, and then makes a process of it for each line that it is told: {"words": [...], "file_size": bytes}."""

import json
import os
import resource
import signal
import sys

from depth_anything_ros.depth_bag import main

print("ready", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    pid = os.fork()
    if not pid:
        with open(told["log"], "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if told["file_size"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_size"], told["file_size"]))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        code = main(told["words"])
        sys.stderr.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
