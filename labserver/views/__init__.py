"""What is drawn: functions from sessions, messages and labs to views.

`view.py` says what a view is. `dialogue.py`, `sequence.py`, `states.py`, `timeline.py`, `wire.py`,
`compare.py`, `message.py`, `log.py`, `fork.py` and `state.py` (a lab) draw one kind each; `show.py`
chooses among them. `card.py` is the frame of exercises and notes.

No protocol logic: what a line means comes from the catalog. Nothing here knows Jupyter or the web.
"""
