#!/usr/bin/env bash
# Guess: with log_to_driver=False and logging_level=ERROR a driver's stdout holds what the driver prints, so it can be piped into jq.
# Version: ray 2.60.0
# Behaviour: when a node dies, Ray prints some thirty lines of "(raylet) Raylet is terminated ..." to the driver's stdout (not to
#   stderr) from a thread of its own; no option of ray.init turns that off.
# Output: on stdout beside the driver's own line: (raylet)
# Why here: `aem gate --json --ray auto | jq` would break just in the night in which a node dies, and a broken pipe of a gate reads as
#   a failed gate. aem puts these lines into the run's log.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ray==2.60.0
cat > "$work/dies.py" << 'EOF'
import logging
import sys
import time

import ray
from ray.cluster_utils import Cluster

cluster = Cluster()
cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
cluster.remove_node(second, allow_graceful=False)
deadline = time.monotonic() + 60
while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < deadline:
    time.sleep(0.5)
time.sleep(5)
print('{"verdict": "PASS"}', flush=True)
ray.shutdown()
cluster.shutdown()
EOF
"$work/venv/bin/python" "$work/dies.py" > "$work/stdout" 2> "$work/stderr"
grep -q '^{"verdict": "PASS"}$' "$work/stdout"
said=$(grep -o '(raylet)' "$work/stdout" | head -n 1)
echo "on stdout beside the driver's own line: $said"
[ "$said" = "(raylet)" ]
