"""What a metric keeps count in, or remembers, leaves it the metric that it was, wherever it does so."""

from __future__ import annotations

import dspy
import pytest

from dspy_cachectl.fingerprints.reached import metric_fingerprint
from tests.fingerprints.sources import made

_D = "def metric(e, p, t=None):\n    "
_S = "class S:\n    def __init__(self): self.n, self.log, self.t = 0, [], None\n    def bump(self): self.n += 1\n"
_CALL = "    def __call__(self, e, p, t=None):\n        "

TALLIES = {
    "namespace": f"N = types.SimpleNamespace(n=0)\n{_D}N.n += 1\n    return 1.0",
    "dataclass": f"@dataclasses.dataclass\nclass S:\n    n: int = 0\nN = S()\n{_D}N.n += 1\n    return 1.0",
    "attribute": f"{_S}N = S()\n{_D}N.log.append(1)\n    return 1.0",
    "by name": f"{_S}N = S()\n{_D}setattr(N, 'n', N.n + 1)\n    return 1.0",
    "two deep": f"{_S}N = S()\nN.t = S()\n{_D}N.t.n += 1\n    return 1.0",
    "class": f"class S:\n    n = 0\n{_D}S.n += 1\n    return 1.0",
    "list of a class": f"class S:\n    n = []\n{_D}S.n.append(1)\n    return 1.0",
    "its class": f"class M:\n    n = 0\n{_CALL}type(self).n += 1\n        return 1.0\nmetric = M()",
    "table of its class": f"class M:\n    n = {{}}\n{_CALL}self.n[len(self.n)] = 1\n        return 1.0\nmetric = M()",
    "class method": f"class M:\n    n = 0\n    @classmethod\n    def bump(cls): cls.n += 1\n{_CALL}self.bump()\n"
    "        return 1.0\nmetric = M()",
    "helper object": f"{_S}class M:\n    def __init__(self): self.s = S()\n{_CALL}self.s.bump()\n        return 1.0\n"
    "metric = M()",
    "alias": f"class M:\n    def __init__(self): self.n = []\n{_CALL}log = self.n\n        log.append(1)\n"
    "        return 1.0\nmetric = M()",
    "alias of a global": f"N = []\n{_D}log = N\n    log.append(1)\n    return 1.0",
    "memo": "def metric(e, p, t=None, memo={}):\n    if p.answer not in memo: memo[p.answer] = 1.0\n"
    "    return memo[p.answer]",
    "partial": "def m(log, e, p, t=None):\n    log.append(1)\n    return 1.0\nmetric = functools.partial(m, [])",
    "argument": f"L = []\ndef note(l, x): l.append(x)\n{_D}note(L, 1)\n    return 1.0",
    "read elsewhere": f"L = []\ndef note(x): L.append(x)\n{_D}note(1)\n    return float(len(L) > 0)",
    "closure of two": "def make():\n    n = {}\n    def bump(): n['x'] = n.get('x', 0) + 1\n"
    "    def metric(e, p, t=None):\n        bump()\n        return float(n['x'] > 0)\n"
    "    return metric\nmetric = make()",
    "function": f"def h(): pass\nh.n = 0\n{_D}h.n += 1\n    return 1.0",
    "wrapper": "def counted(f):\n    @functools.wraps(f)\n    def g(*a):\n        g.calls += 1\n        return f(*a)\n"
    "    g.calls = 0\n    return g\n@counted\ndef metric(e, p, t=None): return 1.0",
    "wrapping object": "class C:\n    def __init__(self, f):\n        self.f, self.calls = f, 0\n"
    "        functools.update_wrapper(self, f)\n    def __call__(self, *a):\n        self.calls += 1\n"
    f"        return self.f(*a)\n@C\ndef h(): return 1.0\n{_D}return h()",
    "cached property": "class K:\n    @functools.cached_property\n    def w(self): return 1.0\nC = K()\n"
    "def metric(e, p, t=None): return C.w",
    "counter": f"N = collections.Counter()\n{_D}N['x'] += 1\n    N.subtract(['y'])\n    return 1.0",
    "made and added": f"N = {{}}\n{_D}N.setdefault('a', []).append(1)\n    return 1.0",
    "heap": f"N = []\n{_D}heapq.heappush(N, 1)\n    return 1.0",
    "array": f"N = numpy.zeros(2)\n{_D}N[0] += 1\n    return 1.0",
    "numbers": f"N = itertools.count()\n{_D}next(N)\n    return 1.0",
    "random": f"R = random.Random(1)\n{_D}R.random()\n    return 1.0",
    "its dictionary": f"class M:\n    def __init__(self): self.n = 0\n{_CALL}self.__dict__['n'] += 1\n"
    "        return 1.0\nmetric = M()",
    "context": f"C = contextvars.ContextVar('c', default=0)\n{_D}C.set(C.get() + 1)\n    return 1.0",
    "local": f"C = threading.local()\n{_D}C.n = getattr(C, 'n', 0) + 1\n    return 1.0",
    "with": "T = []\nclass Timer:\n    def __enter__(self): self.t = len(T)\n"
    "    def __exit__(self, *a): T.append(self.t)\n"
    f"TM = Timer()\n{_D}with TM: return 1.0",
    "module": "class J(dspy.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.t, self.n = S(), 0\n"
    "    def forward(self, e, p, t=None):\n        self.t.bump()\n        self.n += 1\n        return 1.0\n"
    f"{_S}metric = J()",
}
QUICK = {"namespace", "its class", "helper object", "alias", "memo", "read elsewhere", "function", "cached property"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.exhaustive) for name in TALLIES]
)
def test_a_tally_changes_no_metric(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, after the first use, and after more."""
    metric = made(TALLIES[name], "1", monkeypatch).metric
    found = []
    for _ in range(3):
        found.append(metric_fingerprint(metric))
        metric(dspy.Example(), dspy.Prediction(answer="x"))
    assert 1 == len(set(found))
