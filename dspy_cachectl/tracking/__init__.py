"""MLflow: results go to an outbox on disk first, then to the server within a limit.

```python
outcome = log_to_mlflow(run)     # returns within 10 s, whatever the server does
status()                         # what waits in the outbox
sync()                           # deliver it
protect_mlflow()                 # bound MLflow's own calls, too
```
"""

from __future__ import annotations

from dspy_cachectl.tracking.delivery import Delivery, Waiting, status, sync
from dspy_cachectl.tracking.log import LogOutcome, log_to_mlflow
from dspy_cachectl.tracking.protect import Protection, protect_mlflow

__all__ = [
    "Delivery",
    "LogOutcome",
    "Protection",
    "Waiting",
    "log_to_mlflow",
    "protect_mlflow",
    "status",
    "sync",
]
