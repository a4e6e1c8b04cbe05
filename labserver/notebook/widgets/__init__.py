"""What a reader touches: send a message, read an inbox, watch sessions, arm faults.

Each kind is two modules. One does what the buttons do, and is used and tested without Jupyter:
`sending.py`, `reading.py`, `watching.py`, `labserver/faulting.py`. The other is the form around it:
`compose.py`, `reader.py`, `monitor.py`, `faults.py`. What all forms share is `live.py`; only there
ipywidgets is imported, and only when a form is made.
"""
