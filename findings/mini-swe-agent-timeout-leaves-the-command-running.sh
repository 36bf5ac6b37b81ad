#!/usr/bin/env bash
# Guess: a command that mini-swe-agent reports as timed out is over when the agent reads that.
# Version: mini-swe-agent 2.4.6, with the Docker engine of this machine
# Behaviour: the time limit ends `docker exec`, the client. The command goes on in the container, beside whatever the agent does next, and
#   changes files after the agent has looked at them, or after it has written its patch.
# Output: TimeoutExpired; when the agent is told: no file; 4 s later: the file is there
# Why here: test suites and servers run into the limit of 60 s all the time. What they write and lock later is taken for the agent's own
#   doing, and the processor time that they take makes further commands run into the limit. aem ends the whole process group of a
#   command at its limit, before the agent reads on.
set -euo pipefail
docker info > /dev/null 2>&1 || { echo "needs a Docker engine" >&2; exit 1; }
work=$(mktemp -d) image=finding-timeout-$$
trap 'docker rmi --force "$image" > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mini-swe-agent==2.4.6
for program in bash sleep touch ls; do # an image of four programs of this machine, so that no registry is needed
  path=$(command -v "$program")
  for file in "$path" $(ldd "$path" | grep -o '/[^ ]*'); do
    mkdir -p "$work/root$(dirname "$file")"
    cp --dereference --no-clobber "$file" "$work/root$file"
  done
done
mkdir -p "$work/root/bin" "$work/root/tmp"
tar --create --directory "$work/root" . | docker import - "$image" > /dev/null
cd "$work"
MSWEA_CONFIGURED=true MSWEA_SILENT_STARTUP=1 "$work/venv/bin/python" - "$image" << 'EOF'
import sys
import time

from minisweagent.environments.docker import DockerEnvironment

environment = DockerEnvironment(image=sys.argv[1], cwd="/tmp", run_args=["--rm"], interpreter=["bash", "-c"])
try:
    told = environment.execute({"command": "sleep 3; touch late"}, timeout=1)
    then = environment.execute({"command": "ls"})["output"].split()
    time.sleep(4)
    later = environment.execute({"command": "ls"})["output"].split()
finally:
    environment.cleanup()
    time.sleep(1)
said = {True: "the file is there", False: "no file"}
print(f"{told['extra']['exception_type']}; when the agent is told: {said[bool(then)]}; 4 s later: {said[bool(later)]}")
assert (told["extra"]["exception_type"], then, later) == ("TimeoutExpired", [], ["late"])
EOF
