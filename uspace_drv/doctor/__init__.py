"""What this machine can do for a driver in user space, way by way, and what would help.

Three steps: facts are gathered from files alone, then judged, then shown (`uspace doctor`).
Nothing is changed, nothing is opened for writing, and a file that is missing is a fact too.
"""

from uspace_drv.doctor.diagnosis import Diagnosis, diagnose
from uspace_drv.doctor.observer import Observer
from uspace_drv.doctor.verdict import State, Verdict

__all__ = ["Diagnosis", "Observer", "State", "Verdict", "diagnose"]
