#!/usr/bin/env bash
# Do methods of training differ? Several training runs of each, held-out tasks in containers, the official grader, and
# the training run as the unit of comparison. Stop it at any moment: the same command goes on where it was.
#
#   benchmarks/training_methods.sh [FOLDER] [train|evaluate|compare|memory ...]         (all in turn)
#
# `memory` plays 200 other held-out tasks without containers, which costs little and says more of a method's runs.
#
# Set as environment variables: SEEDS (one training run of each method a seed), STEPS of training, ROLLOUTS of each
# held-out task, METHODS (configurations of `aem train`), WORKERS, BFLOAT16 (false: several times faster on a CPU that only
# emulates it).
set -euo pipefail
folder=$(realpath -m "${1:-results/training-methods}")
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- train evaluate compare memory
methods=${METHODS:-"tiny-grpo tiny-aem tiny-step-matched"}
seeds=${SEEDS:-"1 2 3 4"}
steps=${STEPS:-24}
rollouts=${ROLLOUTS:-4}
bfloat16=${BFLOAT16:-true}
registry="$folder/registry"
mkdir -p "$registry"
cd "$folder"

runs() { # every training run, whole seeds first, so that an interrupted comparison has all methods of a seed
    for seed in $seeds; do for method in $methods; do echo "$method $seed"; done; done
}

train() {
    runs | while read -r method seed; do
        run="$folder/training/$method-seed$seed"
        [ -d "$run/checkpoint" ] || aem train --config "$method" -c seed="$seed" -c steps="$steps" \
            -c evaluate_every=0 -c evaluate_tasks=10 -c bfloat16="$bfloat16" --out "$run" --resume < /dev/null
    done
}

evaluate_one() { # CHECKPOINT
    aem run --registry "$registry" --checkpoint "$1" --set tiny --seeds "$rollouts" --workers "${WORKERS:-2}" \
        --no-canary --out "$folder/runs/$1" < /dev/null
}

evaluate() {
    evaluate_one tiny-base
    runs | while read -r method seed; do
        weights="$folder/training/$method-seed$seed/checkpoint" name="$method-$seed"
        [ -d "$weights" ] || { echo "$name is not trained yet" >&2; continue; }
        [ -f "$registry/$name.yaml" ] || aem checkpoints add "$name" --path "$weights" --registry "$registry"
        evaluate_one "$name"
    done
}

compare() {
    local arms=()
    while read -r method seed; do arms+=("$folder/runs/$method-$seed"); done < <(runs)
    # By the cards: every method against the first, then all against the start, which is one policy.
    aem compare "${arms[@]}" --unit run --registry "$registry" --no-trajectories
    local groups=(--group "start=tiny-base")
    for method in $methods; do groups+=(--group "$method=$method-*"); done
    aem compare "$folder/runs/tiny-base" "${arms[@]}" --unit run --no-trajectories "${groups[@]}"
}

memory() {
    for method in $methods; do for seed in $seeds; do echo "$folder/training/$method-seed$seed/checkpoint"; done; done |
        xargs python -m aem_harness.training.evaluate --seed 2027 --csv "$folder/memory.csv"
}

for part; do "$part"; done
