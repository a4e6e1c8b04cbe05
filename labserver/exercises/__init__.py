"""What is judged: tasks for a reader, and conditions on what the servers recorded.

`happened.py` reads sessions through the catalog, `conditions.py` asks of them, `checks.py` judges a
task, `predict.py` a prediction, `quiz.py` asks questions, `progress.py` remembers what was reached.
What is shown with buttons (`predict.py`, `quiz.py`) asks for Jupyter only when it is shown.
"""

from labserver.exercises.checks import check, hint
from labserver.exercises.conditions import (
    Condition,
    InMailbox,
    Legal,
    LoggedIn,
    Refused,
    Retrieved,
    Said,
    Sent,
    UnderTls,
)
from labserver.exercises.predict import predict
from labserver.exercises.progress import progress
from labserver.exercises.quiz import quiz

__all__ = [
    "Condition",
    "InMailbox",
    "Legal",
    "LoggedIn",
    "Refused",
    "Retrieved",
    "Said",
    "Sent",
    "UnderTls",
    "check",
    "hint",
    "predict",
    "progress",
    "quiz",
]
