"""What only Jupyter needs, on top of `views/` and `exercises/`.

`typed.py` sends a cell's lines to a lab, `magics.py` holds `%%smtp` and the other magics,
`display.py` tells IPython how the lab's things are shown, `widgets/` holds the forms with buttons.
"""
