"""An evaluation on the workers of somebody's pool: what is sent to them, what they do, and what comes of it.

`spread` of `spreading` is what `evaluate` calls. It knows the rest of its wing but `running`.
"""
