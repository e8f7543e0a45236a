"""MLflow: results go to an outbox on disk first, then to the server within a limit.

```python
outcome = log_to_mlflow(run)     # returns within 10 s, whatever the server does
status()                         # what waits in the outbox
sync()                           # deliver it
discard(["5f2a"])                # or throw it away
find_mlflow_run()                # the run that this code belongs to, from memory
protect_mlflow()                 # bound MLflow's own calls, too
```

`log_to_mlflow` is in `log`, and the pair of callbacks that logs every evaluation by itself in `callbacks`: these two
import DSPy, the others do not. This wing knows `reports`, `context` and what is below them.
"""

from __future__ import annotations

from dspy_cachectl.tracking.delivery import LogOutcome, discard, status, sync
from dspy_cachectl.tracking.lookup import find_mlflow_run
from dspy_cachectl.tracking.outbox import Waiting
from dspy_cachectl.tracking.protect import Protection, protect_mlflow

__all__ = [
    "LogOutcome",
    "Protection",
    "Waiting",
    "discard",
    "find_mlflow_run",
    "protect_mlflow",
    "status",
    "sync",
]
