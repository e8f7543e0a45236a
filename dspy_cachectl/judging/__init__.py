"""How far a judge can be relied on: asked several times about answers that stay as they are, and beside people.

`check_judge` of `checking` is what to import. It knows every wing below but those that stand beside it.
"""
