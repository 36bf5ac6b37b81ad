#!/usr/bin/env bash
# Guess: Dataset.from_generator calls the generator; where it caches, as load_dataset does, it sees that the files have changed.
# Version: datasets 5.2.0
# Behaviour: the cache goes by the function and its arguments. What the function reads is not part of it: with the same code and the same
#   path the rows of the first time come back, in the next process too, and nothing says so. load_dataset("json") reads the
#   changed file.
# Output: first 3 rows, mean reward 0.33; file grown to 5 rows: from_generator 3 rows, mean 0.33, load_dataset 5 rows, mean 0.60
# Why here: rollouts are appended to a run's folder and read by a generator. The second evaluation, or the training on fresh rollouts, then has
#   the first one's rows: no difference between checkpoints, whatever they are. aem reads and writes its rows without it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0
cd "$work"
export HF_HOME="$work/cache" HF_DATASETS_DISABLE_PROGRESS_BARS=1
cat > evaluate.py << 'EOF'
import json
import sys

from datasets import Dataset, load_dataset


def rollouts(path):
    with open(path) as file:
        for line in file:
            yield json.loads(line)


ways = {
    "from_generator": lambda: Dataset.from_generator(rollouts, gen_kwargs={"path": "rollouts.jsonl"}),
    "load_dataset": lambda: load_dataset("json", data_files="rollouts.jsonl", split="train"),
}
rewards = ways[sys.argv[1]]()["reward"]
print(f"{len(rewards)} rows, mean {sum(rewards) / len(rewards):.2f}")
EOF
evaluate() { venv/bin/python evaluate.py "$1" 2> log || { cat log; exit 1; }; }
for reward in 1.0 0.0 0.0; do echo "{\"reward\": $reward}" >> rollouts.jsonl; done
first=$(evaluate from_generator)
test "$first" = "$(evaluate load_dataset)"
for reward in 1.0 1.0; do echo "{\"reward\": $reward}" >> rollouts.jsonl; done
line="first ${first/mean/mean reward}; file grown to 5 rows: from_generator $(evaluate from_generator), load_dataset $(evaluate load_dataset)"
echo "$line"
test "$line" = "first 3 rows, mean reward 0.33; file grown to 5 rows: from_generator 3 rows, mean 0.33, load_dataset 5 rows, mean 0.60"
