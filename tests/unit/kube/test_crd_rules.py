"""Validation rules of custom resources: the language, its ends, and how a broken rule is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cuboid.kube.crd import rules, structural
from cuboid.kube.crd.cel import Budget, CelError, compiled
from cuboid.kube.crd.values import MISSING
from cuboid.kube.fields import Fields

SELF: dict[str, Any] = {
    "n": 3, "max": 5, "s": "abc", "items": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "m": {"k": "v", "l": "w"},
    "f": 1.5, "t": True, "list": [3, 1, 2], "a-b": 7, "nothing": None, "deep": {"x": {"y": 1}},
}  # fmt: skip


def run(text: str, **more: Any) -> Any:
    return compiled(text).run({"self": {**SELF, **more}, "oldSelf": SELF}, Budget(100_000))


@pytest.mark.parametrize(
    "text",
    [
        "self.n <= self.max",
        "self.n + 2 * 3 == 9 && (self.n + 2) * 3 == 15",
        "7 / 2 == 3 && -7 / 2 == -3 && -7 % 3 == -1 && 7 % -3 == 1",
        "1 == 1.0 && 1 < 1.5 && dyn(1) == 1u",
        "1 != '1'",
        "self.f * 2.0 == 3.0",
        "!self.t || self.n > 1 ? self.s == 'abc' : false",
        "has(self.s) && !has(self.missing) && has(self.deep.x.y)",
        "!has(self.deep.z)",
        "self.items.all(x, x.v > 0)",
        "self.items.exists(x, x.name == 'b')",
        "self.items.exists_one(x, x.v == 1)",
        "self.items.map(x, x.v) == [1, 2]",
        "self.items.map(x, x.v > 1, x.name) == ['b']",
        "self.items.filter(x, x.v > 1).size() == 1",
        "self.m.all(k, self.m[k] != '')",
        "self.list.all(i, v, v - i > -2)",
        "self.list.transformList(i, v, i * v) == [0, 1, 4]",
        "self.m.transformMap(k, v, v + k) == {'k': 'vk', 'l': 'wl'}",
        "'k' in self.m && 3 in self.list && !(9 in self.list)",
        "self.s.startsWith('a') && self.s.endsWith('c') && self.s.contains('b')",
        "self.s.matches('^[a-c]+$')",
        "'a,b,c'.split(',').join('-') == 'a-b-c'",
        "'Hello'.lowerAscii() == 'hello' && 'hello'.upperAscii() == 'HELLO'",
        "'hello'.substring(1, 3) == 'el' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3",
        "'a-b'.replace('-', '+') == 'a+b' && ' a '.trim() == 'a'",
        "'abc 123'.find('[0-9]+') == '123'",
        "size('é') == 1 && size([1, 2]) == 2 && size({'a': 1}) == 1",
        "self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3 && !self.list.isSorted()",
        "int('7') == 7 && string(7) == '7' && double('1.5') == 1.5 && bool('true')",
        "type(1) == int && type('a') == string && type(1) != type('a')",
        "duration('1h30m') > duration('89m') && duration('1h').getMinutes() == 60",
        "timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026",
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        "self.a__dash__b == 7",
        "self.?missing.orValue(5) == 5 && self.?n.orValue(5) == 3",
        "self.?deep.?x.?z.hasValue() == false",
        "optional.of(1).optMap(x, x + 1).value() == 2",
        "cel.bind(x, self.n, x + x) == 6",
        "sets.contains([1, 2, 3], [1]) && sets.equivalent([1, 2], [2, 1]) && sets.intersects([1], [1, 2])",
        "isURL('https://a.b:80/c?d=e') && url('https://a.b:80/c').getPort() == '80' && !isURL('a b')",
        "isIP('10.0.0.1') && ip('::1').family() == 6 && !isIP('x')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isCIDR('10.0.0.0')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('50k').asInteger() == 50000 && isQuantity('1Mi')",
        "false && self.missing == 1 || true",
        "(self.missing == 1 || true) && (true || self.missing == 1)",
        "self.items.exists(x, x.nope == 1 || x.v == 2)",
        "r'a\\d' == 'a\\\\d' && '\\u00e9' == 'é' && b'a' == bytes('a')",
        "self.nothing == null && [1, 'a', null].size() == 3",
        "{'a': 1}.a == 1 && {'a': {'b': 2}}['a'].b == 2",
        "-self.n == -3 && !!true && -9223372036854775808 < 0",
        "// a comment\n true",
        "self == oldSelf",
        "!has(self.cohort) && has(self.items) ? self.items.all(r, r.v > 0 && !has(r.limit)) : true",
        "(self.s == 'abc' ? has(self.m) : !has(self.m)) && (self.s == 'x' ? has(self.zz) : !has(self.zz))",
        "has(self.s) != has(self.zz) && self.s.size() > 0",
        "size(self.items) == 0 || size(self.items) >= self.n - 1",
        "self.items.all(x, self.items.exists_one(y, y.name == x.name))",
        "self.items.map(x, x.name).filter(n, n in ['a']).size() == 1 ? self.t : !self.t",
        "(has(self.a) ? 1 : 0) + (has(self.s) ? 1 : 0) == 1",
        "[has(self.s), has(self.zz)].filter(x, x == true).size() == 1",
        "duration('59m') < duration('1h') && '59m' > '1h'",
        "self.m.exists(k, k.startsWith('k') && self.m[k] == 'v')",
    ],
)
def test_an_expression_is_true(text: str) -> None:
    assert run(text) is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("self.missing == 1", "no such key: missing"),
        ("self.s + 1 == 'abc1'", "no such overload: +(string, int)"),
        ("self.s < 1", "no such overload: <(string, int)"),
        ("1 / 0 == 1", "division by zero"),
        ("9223372036854775807 + 1 > 0", "integer overflow"),
        ("self.list[5] == 1", "index out of bounds: 5"),
        ("self.s.x == 1", "no such overload: string.x"),
        ("self.n.size() == 1", "no such overload: size(int)"),
        ("self.items.all(x, x.nope)", "no such key: nope"),
        ("self.n ? true : false", "no such overload: _?_:_(int)"),
        ("duration('x') == duration('1s')", "type conversion error from string to duration"),
    ],
)
def test_an_expression_that_can_not_be_evaluated_says_why(text: str, words: str) -> None:
    with pytest.raises(CelError) as raised:
        run(text)
    assert str(raised.value).startswith(words)


@pytest.mark.parametrize(
    "text",
    ["self.", "self.a ==", "(1", "1 + + 2 2", "nobody == 1", "self.run()", "launch('x')", "has(self)", "'a",
     "self.all(1, true)", "99999999999999999999", "[1, 2", "{1: }", "a b",
     "self.items.map(x)", "1 === 1", "sets.nope([1])", "", "#"],
)  # fmt: skip
def test_an_expression_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CelError):
        compiled(text)


@pytest.mark.parametrize(
    "text",
    [
        "l.all(a, l.all(b, l.all(c, l.all(d, a + b + c + d >= 0))))",
        "l.map(a, l.map(b, l)).size() > 0",
        "l.all(a, l.map(b, s + s + s + s).join(s).size() > 0)",
        "l.exists(a, l.exists(b, l.exists(c, c.nope == 1)))",
    ],
)
def test_an_expression_that_costs_too_much_comes_to_an_end(text: str) -> None:
    program = compiled(text, ("l", "s"))
    started = time.process_time()
    with pytest.raises(CelError, match="cost limit exceeded"):
        program.run({"l": list(range(1000)), "s": "x" * 10_000}, Budget(rules.MAX_STEPS))
    assert time.process_time() - started < 20


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 500, "!" * 5000 + "true", "[" * 200, "a." * 6000])
def test_an_expression_that_nests_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(CelError):
        compiled(text)


def test_a_long_chain_of_operators_is_no_crash() -> None:
    with pytest.raises(CelError):
        run("1" + "+1" * 4000 + " == 1")


def found(schema: dict[str, Any], value: Any, old: Any = MISSING) -> list[str]:
    fields = Fields()
    rules.check(
        {"type": "object", "properties": {"spec": schema}},
        {"spec": value},
        fields,
        {"spec": old} if old is not MISSING else old,
    )
    return [str(error) for error in fields.errors]


def rule(text: str, **more: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


def test_a_broken_rule_is_told_in_kubernetes_words() -> None:
    assert found(rule("self.a < self.b"), {"a": 2, "b": 1}) == [
        'spec: Invalid value: "object": failed rule: self.a < self.b'
    ]
    assert found(rule("self.a < self.b", message="a before b"), {"a": 2, "b": 1}) == [
        'spec: Invalid value: "object": a before b'
    ]
    assert found(rule("self < 5", messageExpression="'too large: ' + string(self)"), 7) == [
        "spec: Invalid value: 7: too large: 7"
    ]
    assert found(rule("has(self.b)", reason="FieldValueRequired", fieldPath=".b", message="say b"), {"a": 1}) == [
        "spec.b: Required value: say b"
    ]
    assert found(rule("self.a.b == 1"), {"a": {}}) == [
        'spec: Invalid value: "object": no such key: b evaluating rule: self.a.b == 1'
    ]
    assert found(rule("self.a < self.b"), {"a": 1, "b": 2}) == []


def test_rules_are_looked_at_on_every_level() -> None:
    schema = {"properties": {"l": {"items": rule("self.v > 0")}, "m": {"additionalProperties": rule("size(self) < 3")}}}
    assert found(schema, {"l": [{"v": 1}, {"v": 0}], "m": {"k": "long"}}) == [
        'spec.l[1]: Invalid value: "object": failed rule: self.v > 0',
        'spec.m.k: Invalid value: "long": failed rule: size(self) < 3',
    ]


def test_a_transition_needs_an_old_value() -> None:
    schema = {"properties": {"a": rule("self == oldSelf", message="is immutable")}}
    assert found(schema, {"a": 1}) == []
    assert found(schema, {"a": 2}, {"a": 1}) == ["spec.a: Invalid value: 2: is immutable"]
    assert found(schema, {"a": 2}, {}) == []
    optional = {"properties": {"a": rule("!oldSelf.hasValue() || self > oldSelf.value()", optionalOldSelf=True)}}
    assert found(optional, {"a": 1}) == [] and len(found(optional, {"a": 1}, {"a": 2})) == 1


def test_what_did_not_change_is_not_looked_at() -> None:
    schema = {"properties": {"a": rule("self > 5"), "b": {"type": "integer"}}}
    assert found(schema, {"a": 1, "b": 2}, {"a": 1, "b": 1}) == []


def test_values_have_the_types_of_their_schema() -> None:
    schema = {
        "properties": {"t": {"type": "string", "format": "date-time"}, "n": {"type": "number"}},
        **rule("self.t > timestamp('2025-01-01T00:00:00Z') && self.n / 2.0 == 1.5"),
    }
    assert found(schema, {"t": "2026-01-01T00:00:00Z", "n": 3}) == []


def test_rules_wait_for_an_object_that_its_schema_takes() -> None:
    fields = Fields()
    fields.required("spec.a")
    rules.check(rule("self.a > 1"), {"a": None}, fields)
    assert str(fields.errors[1]).startswith("<nil>: Invalid value: null: some validation rules were not checked")


def test_a_budget_is_shared_by_all_rules_of_an_object() -> None:
    schema = {"properties": {"l": {"items": rule("self.all(x, self.all(y, x != y || true))")}}}
    errors = found(schema, {"l": [list(range(200))] * 20})
    assert errors[-1].endswith("running out of cost budget, no further validation rules will be run")
    assert len(errors) == 1


def test_a_definition_with_a_wrong_rule_is_refused() -> None:
    fields = Fields()
    schema = {"type": "object", **rule("self.a == nobody", reason="Because")}
    structural.check_schema(schema, "S", fields)
    texts = [str(error) for error in fields.errors]
    assert texts[0].startswith(
        'S.x-kubernetes-validations[0].rule: Invalid value: "self.a == nobody": compilation failed'
    )
    assert texts[1].startswith('S.x-kubernetes-validations[0].reason: Unsupported value: "Because"')


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("self.a == 1", ""),
        ("has(self.b.c) && self.b.c > 1", ""),
        ("self.nope == 1", "nope"),
        ("has(self.nope)", "nope"),
        ("self.b.nope == self.a", "nope"),
        ("self.list[0].v == 1 && self.list.all(x, x.anything)", ""),
        ("self.list[0].nope == 1", "nope"),
        ("self.map['k'].v == 1", ""),
        ("self.map.k.nope == 1", "nope"),
        ("self.free.any.thing == 1", ""),
        ("self.metadata.name == 'x' && self.kind == 'Foo'", ""),
        ("self.?nope.orValue(1) == 1", "nope"),
        ("[{'nope': 1}].all(self, self.nope == 1)", ""),
        ("oldSelf.nope == 1", "nope"),
    ],
)
def test_a_field_that_the_schema_lacks_is_seen_when_the_rule_is_written(text: str, missing: str) -> None:
    item = {"type": "object", "properties": {"v": {"type": "integer"}}}
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "object", "properties": {"c": {"type": "integer"}}},
            "list": {"type": "array", "items": item},
            "map": {"type": "object", "additionalProperties": item},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        **rule(text),
    }
    fields = Fields()
    structural.check_schema(schema, "S", fields)
    assert [str(error).rpartition("undefined field ")[2] for error in fields.errors] == (
        [f"'{missing}'"] if missing else []
    )
