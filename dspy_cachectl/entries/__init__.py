"""What is asked and what is kept of it: requests and their keys, draws, records, values, secrets, differences.

Pure: values in, values out, without DSPy. Import from its modules. It knows only `errors`.
"""
