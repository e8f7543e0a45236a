"""A metric whose rules, judge or helper is another is another metric, however it comes by them."""

from __future__ import annotations

from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.canonical import UnstableError
from dspy_cachectl.fingerprints.code import code_fingerprint
from dspy_cachectl.fingerprints.reached import metric_fingerprint
from dspy_cachectl.fingerprints.unseen import unseen_by
from tests.calls.support import MakeLM, examples, qa
from tests.endpoint import Endpoint
from tests.fingerprints.sources import made

_M = "def metric(e, p, t=None):\n    return "
_R = "    w: float = 1.0\n    def s(self): return V\n"
_LMS = ("dspy.LM('openai/a')", "dspy.LM('openai/b')")

METHODS = {
    "closure": "def make(v):\n    class M:\n        def __call__(self, e, p, t=None): return v\n"
    "    return M()\nmetric = make(V)",
    "default": "def make(v):\n    class M:\n        def __call__(self, e, p, t=None, w=v): return w\n    return M()\n"
    "metric = make(V)",
    "keyword": "def make(v):\n    class M:\n        def __call__(self, e, p, t=None, *, w=v): return w\n"
    "    return M()\nmetric = make(V)",
    "item": "def make(v):\n    class M:\n        def __getitem__(self, i): return v\n    return M()\nC = make(V)\n"
    f"{_M}C[0]",
    "descriptor": "def make(v):\n    class D:\n        def __get__(self, o, k=None): return v\n    class M:\n"
    f"        x = D()\n    return M()\nC = make(V)\n{_M}C.x",
    "decorated": "def by(w):\n    def of(f):\n        @functools.wraps(f)\n        def g(*a): return f(*a) * w\n"
    "        return g\n    return of\n"
    "class M:\n    @by(V)\n    def __call__(self, e, p, t=None): return 1.0\nmetric = M()",
    "partialmethod": "def make(v):\n    class M:\n        def s(self, w, e, p, t=None): return w\n"
    "        __call__ = functools.partialmethod(s, v)\n    return M()\nmetric = make(V)",
    "metaclass": f"class Meta(type):\n    def s(cls): return V\nclass K(metaclass=Meta): pass\n{_M}K.s()",
    "base": f"class B:\n    @classmethod\n    def s(cls): return V\nclass K(B): pass\n{_M}K.s()",
    "subclasses": f"class B: pass\nclass K(B):\n    def s(self): return V\n{_M}[k().s() for k in B.__subclasses__()]",
}
VALUES = {
    "namedtuple": f"C = collections.namedtuple('Cfg', 't')(V)\n{_M}C.t",
    "dict": f"class D(dict): pass\nC = D(t=V)\n{_M}C['t']",
    "list": f"class L(list): pass\nC = L([V])\n{_M}C[0]",
    "set": f"class S(set): pass\nC = S([V])\n{_M}p in C",
    "str": f"class S(str): pass\nC = S(V)\n{_M}p == C",
    "float": f"class F(float): pass\nC = F(V)\n{_M}p > C",
    "deque": f"C = collections.deque([V])\n{_M}C[0]",
    "factory": f"C = collections.defaultdict(lambda: V)\n{_M}C['a']",
    "order": f"C = collections.OrderedDict([('a', 1), ('b', 2)])\nC.move_to_end(str(V)[0])\n{_M}[*C]",
    "fraction": f"C = fractions.Fraction(int(V))\n{_M}C",
    "template": f"C = string.Template(str(V))\n{_M}C.substitute()",
    "getter": f"C = operator.itemgetter(V)\n{_M}C(e)",
    "array": f"C = numpy.array([V, 'x'], dtype=object)\n{_M}C[0]",
    "masked": f"C = numpy.ma.array([1.0], mask=[bool(int(V) % 2)])\n{_M}C.sum()",
    "memory": f"C = memoryview(bytes([int(V)]))\n{_M}C[0]",
    "bound": f"C = {{'a': V}}.get\n{_M}C('a')",
    "local": f"C = threading.local()\nC.w = V\n{_M}C.w",
    "repeat": f"C = itertools.repeat(V)\n{_M}next(C)",
    "alias": f"class G(typing.Generic[typing.TypeVar('T')]):\n    w = V\nC = G[int]\n{_M}C.w",
    "enum": f"class W(enum.Enum):\n    A = V\nC = [W.A]\n{_M}C[0].value",
    "enum default": "class W(enum.Enum):\n    A = V\ndef metric(e, p, t=None, w=W.A): return w.value",
}
OBJECTS = {
    "in a list": f"@dataclasses.dataclass\nclass R:\n{_R}C = [R()]\n{_M}C[0].s()",
    "in a default": f"@dataclasses.dataclass\nclass R:\n{_R}def metric(e, p, t=None, r=R()): return r.s()",
    "in a partial": f"class R(pydantic.BaseModel):\n{_R}def m(r, e, p, t=None): return r.s()\n"
    "metric = functools.partial(m, R())",
    "in an attribute": f"@dataclasses.dataclass\nclass R:\n{_R}class M:\n    def __init__(self): self.r = R()\n"
    "    def __call__(self, e, p, t=None): return self.r.s()\nmetric = M()",
    "private": "class R(pydantic.BaseModel):\n    _k: float = pydantic.PrivateAttr(V)\n"
    "def m(r, e, p, t=None): return r._k\nmetric = functools.partial(m, R())",
    "no field": "@dataclasses.dataclass\nclass R:\n    def __post_init__(self): self._k = V\n"
    "def m(r, e, p, t=None): return r._k\nmetric = functools.partial(m, R())",
    "patched": f"class K:\n    def s(self): return 0\nC = K()\nC.s = lambda: V\n{_M}C.s()",
}
CODE = {
    "import": "def metric(e, p, t=None):\n    from helpers import score\n    return score(p)",
    "import module": "def metric(e, p, t=None):\n    import helpers as h\n    return h.W",
    "importlib": "def metric(e, p, t=None):\n    return importlib.import_module('helpers').score(p)",
    "getattr": "import helpers\ndef metric(e, p, t=None):\n    return getattr(helpers, 'score')(p)",
    "globals": f"def score(p): return V\n{_M}globals()['score'](p)",
    "closed module": "import helpers\ndef make(m):\n    return lambda e, p, t=None: m.W\nmetric = make(helpers)",
    "wraps": "class D:\n    def __init__(self, f, w):\n        self.f, self.w = f, w\n"
    "        functools.update_wrapper(self, f)\n"
    "    def __call__(self, *a): return self.f(*a) * self.w\ndef m(e, p, t=None): return 1.0\nmetric = D(m, V)",
    "dispatch": "@functools.singledispatch\ndef f(x): return 0\n@f.register\ndef _(x: str): return V\n" + f"{_M}f('a')",
    "attribute": f"def h(): return 0\nh.w = V\n{_M}h.w",
    "registry": "class B:\n    kids = []\n    def __init_subclass__(cls): B.kids.append(cls)\nclass K(B):\n"
    f"    def s(self): return V\n{_M}[k().s() for k in B.kids]",
}
COUNTS = {
    "another key": "W = {'x': V, 'n': 0}\ndef metric(e, p, t=None):\n    W['n'] += 1\n    return W['x']",
    "a key that is read": "W = {'x': V}\ndef metric(e, p, t=None):\n    W[p] = 1\n    return W['x']",
    "another place": "W = [V]\ndef metric(e, p, t=None):\n    W.append(p)\n    return W[0]",
    "another attribute": "N = types.SimpleNamespace(w=V, n=0)\ndef metric(e, p, t=None):\n    N.n += 1\n    return N.w",
    "made where missing": "C = {'w': V}\ndef metric(e, p, t=None): return C.setdefault('w', 0.3)",
    "made once": "M = V\ndef metric(e, p, t=None):\n    global M\n    if M is None: M = 5\n    return M",
    "lambda's own name": "class K: pass\nC = K()\nC.s = lambda e, p: V\ndef metric(e, p, t=None): return C.s(e, p)",
}
JUDGES = {
    "deque": f"C = collections.deque([V])\n{_M}C[0](p)",
    "tuple": f"class J(typing.NamedTuple):\n    lm: object\nC = J(V)\n{_M}C.lm(p)",
    "dict": f"class J(dict): pass\nC = J(lm=V)\n{_M}C['lm'](p)",
    "dataclass": "@dataclasses.dataclass\nclass J:\n    lm: object\ndef m(j, e, p, t=None): return j.lm(p)\n"
    "metric = functools.partial(m, J(V))",
    "local": f"C = threading.local()\nC.lm = V\n{_M}C.lm(p)",
    "deep": f"C = {{'a': [({{'b': collections.deque([V])}},)]}}\n{_M}C['a'][0][0]['b'][0](p)",
    "closure of a method": "def make(j):\n    class M:\n        def __call__(self, e, p, t=None): return j(p)\n"
    "    return M()\nmetric = make(V)",
    "default of a method": "def make(l):\n    class M:\n        def __call__(self, e, p, t=None, j=l): return j(p)\n"
    "    return M()\nmetric = make(V)",
}
KINDS = {"method": METHODS, "value": VALUES, "object": OBJECTS, "code": CODE, "count": COUNTS, "judge": JUDGES}
QUICK = {"closure", "namedtuple", "in a list", "import", "wraps", "another key", "tuple"}
CASES = [
    pytest.param(source, _LMS if kind == "judge" else ("'1'", "'2'") if name in {"str", "template"} else ("1", "2"),
                 id=f"{kind}: {name}", marks=[] if name in QUICK else pytest.mark.exhaustive)
    for kind, sources in KINDS.items()
    for name, source in sources.items()
]  # fmt: skip


@pytest.mark.parametrize(("source", "values"), CASES)
def test_what_decides_is_told_apart(source: str, values: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value is another metric, and the same one is the same in a second look and in a second module."""
    values = ("'a'", "'b'") if "move_to_end" in source else values
    one, again, other = (metric_fingerprint(made(source, v, monkeypatch).metric) for v in (*values[:1], *values))
    assert one == again
    assert one != other


EXACT = {
    "module": "import math, operator\nM = (math, operator)[V - 1]\ndef make(m):\n"
    "    return lambda t: m.__name__\nembed = make(M)",
    "rebound": "import math, operator\nM = (math, operator)[V - 1]\ndef embed(t): return M.__name__",
    "lazy": "M = V\ndef embed(t):\n    global M\n    if M is None: M = 5\n    return M",
    "list": "L = [V]\ndef embed(t):\n    L.append(0)\n    return L[0]",
    "call": METHODS["closure"].replace("metric", "embed"),
    "subclass": "class D(dict):\n    def __call__(self, t): return self['w']\nembed = D(w=V)",
}


@pytest.mark.parametrize("name", EXACT)
def test_what_embeds_is_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by what it would set itself, and by the items of a container of the user's."""
    one, again, other = (code_fingerprint(made(EXACT[name], v, monkeypatch).embed, exact=True) for v in ("1", "1", "2"))
    assert one == again
    assert one != other


HIDDEN = {
    "random.Random": f"C = random.Random(V)\n{_M}C.random()",
    "generator": f"C = (i for i in [V])\n{_M}next(C)",
    "_thread._local": VALUES["local"],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_cannot_be_read_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that rests on it says so, and what embeds is not cached."""
    metric = made(HIDDEN[name], "1", monkeypatch).metric
    assert [said for said in unseen_by(metric) if f"{name} holds cannot be seen" in said]
    with pytest.raises(UnstableError):
        code_fingerprint(metric, exact=True)


def test_what_is_looked_up_by_a_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is known only as it runs."""
    for code in ("globals()[p]", "importlib.import_module(p)"):
        assert ("metric() looks up by name what it uses",) == unseen_by(made(f"{_M}{code}", "1", monkeypatch).metric)


TWICE = """
@dataclasses.dataclass
class Rule:
    limit: float
    def __call__(self, e, p, t=None): return float(len(p.answer) > self.limit) + V
def make(rules, judge):
    class Metric:
        calls = 0
        def __call__(self, e, p, t=None):
            Metric.calls += 1
            judge(p.answer)
            return sum(rule(e, p) for rule in rules)
    return Metric()
"""


def test_no_kept_score_is_served_for_another_metric(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is asked again where it, or a rule in a list, is another; not where the metric has only counted."""
    dspy.configure(lm=lm("openai/main"))

    def scored(value: str, judge: str, twice: bool = False) -> tuple[float, int]:
        space = made(TWICE, value, monkeypatch)
        metric = space.make([space.Rule(0.0)], lm(f"openai/{judge}"))
        for _ in range(1 + twice):
            asked = endpoint.requests
            report = cachectl.evaluate(
                qa(), examples(3), metric, predictions=str(tmp_path), display_progress=False, num_threads=1
            )
        return report.score, endpoint.requests - asked

    assert (1.0, 0) == scored("0.0", "one", twice=True)
    assert (1.0, 3) == scored("0.0", "two")
    assert (1.5, 0) == scored("0.5", "two")
    assert ["main", "one", "two"] == sorted({str(request["body"]["model"]) for request in endpoint.log()})


@pytest.mark.parametrize("length", [30, pytest.param(400, marks=pytest.mark.exhaustive)])
def test_the_end_of_a_long_row_of_helpers_decides(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of functions that call one another, and of objects that hold one another."""
    calls = "".join(f"def f{n}(x): return f{n + 1}(x)\n" for n in range(length))
    row = "class N:\n    def __init__(self, then): self.then = then\n"
    row += f"C = V\nfor _ in range({length}): C = N(C)\n{_M}C"
    for source in (f"{calls}def f{length}(x): return V\n{_M}f0(p)", row):
        one, again, other = (metric_fingerprint(made(source, value, monkeypatch).metric) for value in ("1", "1", "2"))
        assert one == again
        assert one != other


def test_objects_that_let_nothing_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """They end no evaluation, and are said; functions that are written in C are not."""
    source = "class K:\n    @property\n    def __dict__(self): raise OSError\nC = K()\n"
    metric = made(f"{source}{_M}C", "1", monkeypatch).metric
    assert 64 == len(metric_fingerprint(metric))
    assert ("what a edited.K holds cannot be seen",) == unseen_by(metric)
    assert () == unseen_by(made(f"C = numpy.exp\n{_M}C(1)", "1", monkeypatch).metric)
