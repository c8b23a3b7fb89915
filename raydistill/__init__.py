"""Distil one small multi-task student from experts of several domains, on Ray.

    import raydistill
    result = raydistill.distill("demo")

Importing the package loads neither torch nor ray: a command does, when it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raydistill.config.loader import list_recipes, load_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError, DataError, RaydistillError, RemoteError, SoftLabelError, TeacherError

if TYPE_CHECKING:
    from raydistill.commands.distill import distill
    from raydistill.commands.doctor import doctor
    from raydistill.commands.evaluate import evaluate
    from raydistill.commands.job_server import Job
    from raydistill.commands.label import label
    from raydistill.commands.methods import list_methods
    from raydistill.commands.plan import plan
    from raydistill.commands.report import report
    from raydistill.commands.store import list_store, prune_store, verify_store
    from raydistill.commands.submit import submit
    from raydistill.commands.teach import teach
    from raydistill.commands.teachers import list_teachers, stop_teachers
    from raydistill.student.model import Student
    from raydistill.student.predicting import predict
    from raydistill.tuning.records import SweepResult
    from raydistill.tuning.sweep import resume_sweep, tune

__version__ = "0.1.0"
__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "Job",
    "RaydistillError",
    "RemoteError",
    "SoftLabelError",
    "Student",
    "SweepResult",
    "TeacherError",
    "distill",
    "doctor",
    "evaluate",
    "label",
    "list_methods",
    "list_recipes",
    "list_store",
    "list_teachers",
    "load_config",
    "plan",
    "predict",
    "prune_store",
    "report",
    "resume_sweep",
    "stop_teachers",
    "submit",
    "teach",
    "tune",
    "verify_store",
]

_LATER = {
    "distill": "raydistill.commands.distill",
    "doctor": "raydistill.commands.doctor",
    "evaluate": "raydistill.commands.evaluate",
    "label": "raydistill.commands.label",
    "list_methods": "raydistill.commands.methods",
    "list_store": "raydistill.commands.store",
    "list_teachers": "raydistill.commands.teachers",
    "plan": "raydistill.commands.plan",
    "predict": "raydistill.student.predicting",
    "prune_store": "raydistill.commands.store",
    "report": "raydistill.commands.report",
    "resume_sweep": "raydistill.tuning.sweep",
    "stop_teachers": "raydistill.commands.teachers",
    "submit": "raydistill.commands.submit",
    "teach": "raydistill.commands.teach",
    "tune": "raydistill.tuning.sweep",
    "verify_store": "raydistill.commands.store",
    "Job": "raydistill.commands.job_server",
    "Student": "raydistill.student.model",
    "SweepResult": "raydistill.tuning.records",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
