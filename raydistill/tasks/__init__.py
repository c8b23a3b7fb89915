"""What a task is: its head, its losses, its metric. One file a task kind."""

from raydistill.tasks.base import Task, make_task

__all__ = ["Task", "make_task"]
