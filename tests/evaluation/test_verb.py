import inspect
import subprocess
import sys

SCRIPT = """
import inspect, vitrail
before = inspect.signature(vitrail.evaluate)
import vitrail.evaluation.evaluator
assert inspect.signature(vitrail.evaluate) == before, inspect.signature(vitrail.evaluate)
try:
    vitrail.evaluate("no such run")
except vitrail.errors.VitrailError:
    pass
"""


def test_the_verb_outlives_the_import_of_the_package():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import vitrail

    assert "part" in inspect.signature(vitrail.evaluate).parameters
