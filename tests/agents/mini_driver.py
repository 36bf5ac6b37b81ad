"""Runs a real mini-swe-agent on scripted replies; executed by the Python of its own virtual environment.

stdin: a list of {"file": configuration in its package, "workdir", "timeout", "task", "steps", "replies": [[message,
finish reason]], "image": null or a container image}; stdout's last line: the messages of each, as JSON.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import litellm
import minisweagent
import yaml
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments import local
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.models.litellm_model import LitellmModel
from minisweagent.models.litellm_textbased_model import LitellmTextbasedModel


def bash(command, *, shell, **options):
    return subprocess.Popen(["bash", "-c", command], **options)


def run(job):
    config = yaml.safe_load((Path(minisweagent.__file__).parent / job["file"]).read_text())
    settings = {**config["model"], "cost_tracking": "ignore_errors"}
    model = (LitellmTextbasedModel if "backticks" in job["file"] else LitellmModel)(**settings)
    replies = iter(job["replies"])

    def scripted(messages, **kwargs):
        message, finish_reason = next(replies)
        choice = {"index": 0, "finish_reason": finish_reason, "message": message}
        return litellm.ModelResponse(choices=[choice], model="scripted")

    model._query = scripted
    environment = config["environment"]
    if job["image"]:
        env = DockerEnvironment(
            image=job["image"],
            cwd=job["workdir"],
            timeout=job["timeout"],
            env=environment["env"],
            interpreter=environment["interpreter"],
            run_args=["--rm", "--label", "aem"],
        )
    else:
        # Its local environment uses sh; in a container it uses bash, and so does the comparison.
        local.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": bash})
        shell_env = {key: value for key, value in environment["env"].items() if key != "BASH_ENV"}
        env = local.LocalEnvironment(cwd=job["workdir"], timeout=job["timeout"], env=shell_env)
    agent = DefaultAgent(model, env, **{**config["agent"], "step_limit": job["steps"], "cost_limit": 0})
    try:
        agent.run(job["task"])
    finally:
        if job["image"]:
            subprocess.run(["docker", "rm", "-f", env.container_id], capture_output=True, check=False)
    return agent.messages


print("\n" + json.dumps([run(job) for job in json.load(sys.stdin)], default=str))
