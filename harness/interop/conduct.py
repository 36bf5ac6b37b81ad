"""Anyone's trajectories, read for marks on what the policy did (harness/grading/conduct.py)."""

from pathlib import Path

from aem_harness.harness.grading.audit import Mark
from aem_harness.harness.grading.conduct import audit_commands, package_of, repo_of
from aem_harness.harness.interop.trajectories import read_trajectory


def audit_trajectory(path: Path) -> list[Mark]:
    """The marks of one trajectory file, in any form that `interop` reads. Raises DataError when it is none."""
    trajectory = read_trajectory(path)
    commands = [command for turn in trajectory.turns for command in turn.commands]
    return audit_commands(commands, package=package_of(repo_of(trajectory.instance_id)))


def find_trajectories(folder: Path) -> list[Path]:
    """The trajectory files under a folder: `.traj` and `.traj.json`, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if path.name.endswith((".traj", ".traj.json")) and path.is_file())
