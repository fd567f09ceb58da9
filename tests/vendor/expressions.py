"""Expressions of our source: what kind each is, and what of the vendor's module it uses."""

import ast
from collections.abc import Sequence

from tests.vendor.kinds import (
    PLAIN,
    UNKNOWN,
    ClassOf,
    Instance,
    Items,
    Kind,
    Mapped,
    Own,
    OwnClass,
    Parts,
    Returns,
    Unknown,
    element,
    indexed,
    join,
)
from tests.vendor.notes import Notes

Scope = dict[str, Kind]


class Expressions(Notes):
    """Evaluates, and notes uses on the way."""

    def evaluate(self, node: ast.expr | None, scope: Scope) -> Kind:
        """The kind of an expression."""
        match node:
            case None | ast.Constant():
                return PLAIN
            case ast.Name(name):
                return scope.get(name, PLAIN)
            case ast.Attribute():
                kind, path = self.attribute(node, scope)
                if path is not None:
                    self.use(node, path, "read")
                return kind
            case ast.Call():
                return self.call(node, scope)
            case ast.Subscript(value, index):
                return self._subscript(node, self.evaluate(value, scope), index, scope)
            case ast.Tuple(elements):
                return Parts(tuple(self.evaluate(each, scope) for each in elements))
            case ast.List(elements) | ast.Set(elements):
                return Items(join(*[self.evaluate(each, scope) for each in elements]))
            case ast.Dict(keys, values):
                for key in keys:
                    self.evaluate(key, scope)
                return Mapped(join(*[self.evaluate(each, scope) for each in values]))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node, scope)
            case ast.Lambda(arguments, body):
                inner = scope | dict.fromkeys((each.arg for each in arguments.args), UNKNOWN)
                return Returns(self.evaluate(body, inner))
            case ast.NamedExpr(target, value):
                kind = self.evaluate(value, scope)
                self.bind(target, kind, scope)
                return kind
            case ast.IfExp(test, body, other):
                self.evaluate(test, scope)
                return join(self.evaluate(body, scope), self.evaluate(other, scope))
            case ast.BoolOp(_, values):
                return join(*[self.evaluate(each, scope) for each in values])
            case ast.Starred(value) | ast.Await(value):
                return self.evaluate(value, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.evaluate(child, scope)
                return PLAIN

    def attribute(self, node: ast.Attribute, scope: Scope) -> tuple[Kind, str | None]:
        """The kind, and the path where it is the vendor's."""
        return self.look_up(node, self.evaluate(node.value, scope), node.attr)

    def _subscript(self, node: ast.expr, base: Kind, index: ast.expr, scope: Scope) -> Kind:
        self.evaluate(index, scope)
        match base:
            case Instance(name):
                self.use(node, f"{name}.__getitem__", "call", 1)
                return indexed(name, self.inventory)
            case Items(each) if isinstance(index, ast.Slice):
                return base
            case Items(each) | Mapped(each):
                return each
            case Parts(kinds):
                at = index.value if isinstance(index, ast.Constant) else None
                return kinds[at] if isinstance(at, int) and at < len(kinds) else join(*kinds)
            case Unknown():
                return base
            case _:
                return PLAIN

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope
    ) -> Kind:
        inner = dict(scope)
        for generator in node.generators:
            self.bind(generator.target, self.iterate(generator.iter, inner), inner)
            for test in generator.ifs:
                self.evaluate(test, inner)
        if isinstance(node, ast.DictComp):
            self.evaluate(node.key, inner)
            return Mapped(self.evaluate(node.value, inner))
        return Items(self.evaluate(node.elt, inner))

    def iterate(self, node: ast.expr, scope: Scope) -> Kind:
        """What a loop over it gives."""
        kind = self.evaluate(node, scope)
        if isinstance(kind, Instance):
            self.use(node, kind.name, "iterate")
        return element(kind, self.inventory)

    def bind(self, target: ast.expr, kind: Kind, scope: Scope) -> None:
        """Give a name, an attribute or several of them a value."""
        match target:
            case ast.Name(name):
                scope[name] = kind
            case ast.Starred(value):
                self.bind(value, Items(kind), scope)
            case ast.Tuple(elements) | ast.List(elements):
                for each, part in zip(elements, self._spread(kind, elements), strict=True):
                    self.bind(each, part, scope)
            case ast.Attribute(value, name):
                self.store(target, self.evaluate(value, scope), name, kind)
            case _:
                self.evaluate(target, scope)

    def _spread(self, kind: Kind, targets: Sequence[ast.expr]) -> list[Kind]:
        """One for each target; for a starred one, what each of its items is."""
        starred = [index for index, each in enumerate(targets) if isinstance(each, ast.Starred)]
        surplus = len(kind.kinds) - len(targets) if isinstance(kind, Parts) else 0
        if not isinstance(kind, Parts) or surplus < -len(starred) or (surplus and not starred):
            return [element(kind, self.inventory)] * len(targets)
        parts = list(kind.kinds)
        for at in starred:
            parts[at : at + surplus + 1] = [join(*parts[at : at + surplus + 1])]
        return parts

    def annotation(self, node: ast.expr | None, scope: Scope) -> Kind:
        """What an annotation promises; the names in it are uses as well."""
        match node:
            case None:
                return UNKNOWN
            case ast.Constant(str() as text):
                quoted = ast.parse(text, mode="eval")
                return self.annotation(ast.increment_lineno(quoted, node.lineno - 1).body, scope)
            case ast.BinOp(left, ast.BitOr(), right):
                return join(self.annotation(left, scope), self.annotation(right, scope))
            case ast.Subscript(outer, inner):
                inners = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                return self._generic(ast.unparse(outer), inners, scope)
            case ast.Name("Any"):
                return UNKNOWN
            case _:
                return _instance(self.evaluate(node, scope))

    def _generic(self, name: str, inners: list[ast.expr], scope: Scope) -> Kind:
        if name.rpartition(".")[2] in ("Literal", "Callable"):
            return PLAIN
        kinds = [self.annotation(each, scope) for each in inners]
        match name.rpartition(".")[2]:
            case "Annotated" | "ClassVar" | "Final" | "Optional":
                return kinds[0]
            case "Union":
                return join(*kinds)
            case "tuple" if len(inners) != 2 or ast.unparse(inners[1]) != "...":
                return Parts(tuple(kinds))
            case "dict" | "defaultdict" | "Mapping" | "MutableMapping":
                return Mapped(kinds[-1])
            case _:
                return Items(kinds[0])

    def call(self, node: ast.Call, scope: Scope) -> Kind:
        """What a call returns."""
        raise NotImplementedError


def _instance(kind: Kind) -> Kind:
    match kind:
        case ClassOf(name):
            return Instance(name)
        case OwnClass(name):
            return Own(name)
        case Unknown():
            return kind
        case _:
            return PLAIN
