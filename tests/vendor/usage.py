"""What a source file does with a vendor's module, found by reading it.

Types follow from assignments, annotations, and what the inventory says that a call returns. What
cannot be typed and may be the vendor's is unresolved: an annotation helps.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.vendor.calls import SUPER, Calls
from tests.vendor.expressions import Scope
from tests.vendor.inventory import Inventory
from tests.vendor.kinds import (
    PLAIN,
    UNKNOWN,
    ClassOf,
    Definition,
    Instance,
    Items,
    Kind,
    Own,
    OwnClass,
    Returns,
    VendorModule,
    path_kind,
)
from tests.vendor.notes import Use

ROUNDS: Final = 3  # names are used before they are defined, and attributes follow from them
SPEAKERS: Final = ("tensorrt_", "cuda_")  # our modules that may hand out a vendor's objects
STATIC: Final = "staticmethod"


@dataclass(frozen=True, slots=True)
class Usage:
    """In the order of the source."""

    uses: tuple[Use, ...]
    unresolved: tuple[str, ...]


def read_usage(source: str, inventory: Inventory) -> Usage:
    """Every use of the inventory's module in a file; one that does not import it has none."""
    tree = ast.parse(source)
    reader = _Statements(inventory)
    scope: Scope = {}
    for _ in range(ROUNDS):
        reader.uses, reader.unresolved = [], []
        reader.run(tree.body, scope)
    if not reader.imports:
        return Usage((), ())
    uses = sorted(dict.fromkeys(reader.uses), key=lambda use: use.line)
    return Usage(tuple(uses), tuple(dict.fromkeys(reader.unresolved)))


class _Statements(Calls):
    """Runs them in order, each branch once."""

    imports = False  # whether the module is imported

    def run(self, body: list[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: Scope) -> None:
        match node:
            case ast.Import(names):
                for each in names:
                    self._import(node, each, scope)
            case ast.ImportFrom(module, names):
                for each in names:
                    scope[each.asname or each.name] = self._imported(node, module or "", each.name)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope[node.name] = self._function(node, scope, None)
            case ast.ClassDef():
                scope[node.name] = OwnClass(node.name)
                self._class(node, scope)
            case ast.Assign(targets, value):
                kind = self.evaluate(value, scope)
                for target in targets:
                    self.bind(target, kind, scope)
            case ast.AnnAssign(target, annotation, value):
                kind = self.evaluate(value, scope)
                bare = ast.unparse(annotation) == "Final"
                self._declare(target, kind if bare else self.annotation(annotation, scope), scope)
            case ast.For(target, iterable, body, orelse):
                self.bind(target, self.iterate(iterable, scope), scope)
                self.run([*body, *orelse], scope)
            case ast.With(items, body):
                for item in items:
                    kind = self.evaluate(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars, kind, scope)
                self.run(body, scope)
            case _:
                self._children(node, scope)

    def _children(self, node: ast.AST, scope: Scope) -> None:
        """Of what binds nothing itself: if, try, return and the like."""
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.stmt():
                    self._statement(child, scope)
                case ast.expr():
                    self.evaluate(child, scope)
                case _:
                    self._children(child, scope)

    def _import(self, node: ast.Import, name: ast.alias, scope: Scope) -> None:
        if name.name != self.inventory.module:
            scope[name.asname or name.name.partition(".")[0]] = PLAIN
        elif name.asname is None and "." in name.name:
            self.doubt(node)
        else:
            self.imports = True
            scope[name.asname or name.name] = VendorModule()

    def _imported(self, node: ast.ImportFrom, module: str, name: str) -> Kind:
        if f"{module}.{name}" == self.inventory.module:
            self.imports = True
            return VendorModule()
        if module == self.inventory.module:
            self.imports = True
            if name == "*":
                self.doubt(node)
            self.use(node, name, "read")
            return path_kind(name, self.inventory)
        return UNKNOWN if module.rpartition(".")[2].startswith(SPEAKERS) else PLAIN

    def _declare(self, target: ast.expr, kind: Kind, scope: Scope) -> None:
        owner = self.evaluate(target.value, scope) if isinstance(target, ast.Attribute) else PLAIN
        if isinstance(target, ast.Attribute) and isinstance(owner, Own):
            definition = self.definitions[owner.name]
            definition.attributes[target.attr] = kind
            definition.annotated.add(target.attr)
        else:
            self.bind(target, kind, scope)

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: str | None
    ) -> Kind:
        """Its body, in a scope of its own; the kind is that of the name."""
        decorators = [ast.unparse(each) for each in node.decorator_list]
        for each in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            self.evaluate(each, scope)
        inner = scope | dict(self._parameters(node, scope, None if STATIC in decorators else owner))
        returns = self.annotation(node.returns, scope)
        self.run(node.body, inner)
        made = any(each.endswith("property") for each in decorators)
        return returns if made else Returns(returns)

    def _parameters(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: str | None
    ) -> Iterator[tuple[str, Kind]]:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for index, each in enumerate(arguments):
            of_self = owner is not None and index == 0
            yield each.arg, Own(owner) if of_self else self.annotation(each.annotation, scope)
        if node.args.vararg is not None:
            kind = self.annotation(node.args.vararg.annotation, scope)
            yield node.args.vararg.arg, Items(kind)
        if node.args.kwarg is not None:
            yield node.args.kwarg.arg, PLAIN
        if owner is not None:
            base = self.definitions[owner].base
            yield SUPER, PLAIN if base is None else Instance(base)

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        bases = [self.evaluate(each, scope) for each in node.bases]
        vendor = [each.name for each in bases if isinstance(each, ClassOf)]
        definition = self.definitions.setdefault(node.name, Definition(None))
        definition.base = vendor[0] if vendor else None
        definition.before, definition.attributes = definition.attributes, {}
        inner = dict(scope)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                kind = self._function(statement, scope, node.name)
                definition.attributes[statement.name] = kind
                self._override(statement, definition.base)
            else:
                self._statement(statement, inner)
        own = {name: kind for name, kind in inner.items() if scope.get(name) != kind}
        definition.attributes |= own
        if definition.base is not None:
            names = tuple(each.name for each in node.body if isinstance(each, ast.FunctionDef))
            self.use(node, definition.base, "subclass", 0, names)

    def _override(self, node: ast.FunctionDef, base: str | None) -> None:
        if base is None or node.name == "__init__":
            return
        if self.inventory.method(base, node.name) is not None:
            self.use(node, f"{base}.{node.name}", "override", len(node.args.args) - 1)
