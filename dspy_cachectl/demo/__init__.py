"""The demo: compile from the cache, evaluate afresh, on a real model.

`pipeline.run` is what `dspy-cachectl demo` calls, and `local_model` gives everybody a model to try things with; nothing
else is for other wings. It uses the whole package as a user would, and a model server of its own. Importing this
package loads nothing heavy.
"""
