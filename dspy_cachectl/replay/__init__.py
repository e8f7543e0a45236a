"""Cassettes: answers in a file, to be replayed in tests and elsewhere without a provider.

`cassettes` is for people, `plugin` for pytest, `files` for `manage`. It knows what lies below, of `reports`
only how texts and files are written. Nothing is imported here: pytest imports the plugin at each start, and that must
not load DSPy.
"""
