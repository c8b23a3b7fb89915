"""What a task is: its head, its losses, its metric. One file a task kind."""

from raydistill.tasks.base import Prediction, Task, make_task, task_of

__all__ = ["Prediction", "Task", "make_task", "task_of"]
