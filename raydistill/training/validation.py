"""How good the student is now, in the measure that picks the best checkpoint."""

from __future__ import annotations

from typing import Any

from raydistill.data.dataset import TaskData
from raydistill.student.model import Student
from raydistill.student.predicting import predict_split


def validate(
    student: Student, data: dict[str, TaskData], ensemble_accuracy: dict[str, float], bf16: bool
) -> dict[str, Any]:
    """By task its metric on the validation split, and their mean retention.

    Retention of a task is its metric over the teachers' on the same split; a task without teachers counts with
    its bare metric. Never the training loss: temperature and weights rescale that.
    """
    scores = {}
    for name, task in student.tasks.items():
        logits = predict_split(student, name, data[name].validation, bf16=bf16)
        scores[name] = task.metric(logits, data[name].validation.labels)
    # A teacher that is never right is no measure; the bare metric then is.
    retention = [score / (ensemble_accuracy.get(name) or 1.0) for name, score in scores.items()]
    return {"validation": scores, "retention": sum(retention) / len(retention)}
