"""Looking at a store and taking care of it: what the commands do, without how they print.

Import from its modules. It knows the wings below but `evaluation`. Nothing here imports dspy, litellm or mlflow: a
command has to answer at once.
"""
