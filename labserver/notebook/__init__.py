"""What a reader of a notebook sees and touches.

- To look at: `view.py` says what a view is; `dialogue.py`, `sequence.py`, `states.py`,
  `timeline.py`, `wire.py`, `compare.py`, `message.py`, `log.py` and `fork.py` draw one kind each,
  `state.py` a lab.
- To type: `typed.py` sends a cell's lines to a lab, `magics.py` are the cells' `%%smtp` and so on.
- To do: `predict.py`, `checks.py` with its `conditions.py` on what `happened.py` finds, `quiz.py`;
  `progress.py` remembers. `card.py` is the frame of all these.

No protocol logic: what a line means comes from the catalog. Only `display.py` and `magics.py` know
IPython, and what is shown with buttons (`predict.py`, `quiz.py`) asks for it when it is shown.
"""
