"""What a runner asks of the places where containers are."""

from aem_harness.harness.run.places import Places
from benchmarks.steps_run import Boxes


def test_the_benchmark_of_steps_stands_for_all_that_a_runner_asks():
    """It went out of use twice when places learned something new."""
    asked = {name for name in vars(Places) if not name.startswith("_")}
    assert asked <= set(dir(Boxes))
