"""Which functions and classes of a module each of its calls may reach, through any variable.

Flow without order: a variable is its name, wherever it stands, and holds all that is ever put into it, as an attribute
or a parameter of that name does. What is put where this reader does not follow it (into a list, into a call of
PyTorch's, out of a function) may be called from anywhere, and is no longer *known*: what is, only the module calls.
A network itself, whose name ends in ``Net``, is called by others.
"""

from __future__ import annotations

from collections import defaultdict

import libcst as cst

from nngen.assembly.tidying.routines import (
    PYTORCH,
    Routine,
    Site,
    as_routine,
    is_partial,
    is_super,
    methods,
    only_keywords,
    parameters,
    spelled_words,
    target_names,
)
from nngen.assembly.walk import walk

__all__ = ["Flow"]

_ANYTHING = "?"
"""A value that is not a known routine."""
_ASKING = frozenset({"isinstance", "issubclass"})
_BLIND = frozenset({"eval", "exec", "globals", "locals", "vars", "__class__", "__dict__", "__new__"})
_BASES = frozenset({"nn.Module", "torch.nn.Module", "object"})
_KINDS = frozenset({"classmethod", "staticmethod"})


class Flow:
    """A module's routines and calls.

    Attributes:
        known: Routines whose every call is one of ``sites``.
        sites: Every call that may reach a routine.
    """

    def __init__(self, module: cst.Module) -> None:
        self._module = module
        self._classes = {item.name.value: item for item in module.body if isinstance(item, cst.ClassDef)}
        self._routines: dict[str, list[Routine]] = defaultdict(list)
        """By the name that a call spells."""
        self._makers: dict[str, Routine] = {}
        self._held: dict[str, set[Routine | str]] = defaultdict(set)
        self._edges: list[tuple[cst.BaseExpression, str]] = []
        """Expressions that flow into a variable, into anything (``?``), or nowhere (the empty name)."""
        self._sites: list[tuple[Site, cst.BaseExpression | str]] = []
        self._lost: set[Routine] = set()
        self._seen: set[int] = set()
        self._set = any(isinstance(node, cst.Name) and node.value == "setattr" for node in walk(module))
        """Whether any attribute may be more than what is put into it by name."""
        self._collect()
        for statement in module.body:
            self._statement(statement, None)
        for _, into in self._edges:
            self._held[into]  # known to be empty, so far
        while self._spread():
            pass
        self.sites = [site for site, _ in self._sites if site.reached]
        starred = {item for site in self.sites if any(arg.star for arg in site.args) for item in site.reached}
        every = {*self._makers.values(), *(item for items in self._routines.values() for item in items)}
        blind = self._blind()
        self.known = {item for item in every if item.closed and not blind and item not in self._lost | starred}

    # ------------------------------------------------------------------ routines

    def _collect(self) -> None:
        spelled = spelled_words(self._module)
        names = [node.name.value for node in walk(self._module) if isinstance(node, cst.ClassDef | cst.FunctionDef)]
        for item in self._module.body:
            if isinstance(item, cst.FunctionDef):
                closed = item.name.value not in spelled and not item.decorators and names.count(item.name.value) == 1
                self._add(item.name.value, as_routine(item, bound=False, closed=closed))
        for name, kind in self._classes.items():
            plain = not kind.decorators and not kind.keywords and len(kind.bases) <= 1 and name not in spelled
            for method in methods(kind):
                own = method.name.value
                if own == "__init__":
                    closed = plain and not method.decorators and names.count(name) == 1 and not name.endswith("Net")
                    self._makers[name] = as_routine(method, bound=True, closed=closed)
                    continue
                decorators = [cst.Module([]).code_for_node(item.decorator) for item in method.decorators]
                closed = plain and own not in spelled and _KINDS.issuperset(decorators) and self._rooted(name)
                closed = closed and not own.startswith("__") and own not in PYTORCH
                routine = as_routine(method, bound="staticmethod" not in decorators, closed=closed)
                self._add(own, routine)
                if decorators == ["classmethod"] and method.params.params:
                    first = method.params.params[0].name.value
                    for other in self._classes:
                        if name in self._line(other):
                            self._edges.append((cst.Name(other), first))
        for kind in self._classes.values():
            if len(kind.bases) > 1:  # ``super`` there reaches what this reader does not see
                for base in kind.bases:
                    if isinstance(base.value, cst.Name) and (maker := self._maker(base.value.value)):
                        self._lost.add(maker)
        for items in [*self._routines.values(), [*self._makers.values()]]:
            for routine in items:
                self._seen.add(id(routine.node))
                for name in parameters(routine):
                    self._held[name]
                if not routine.closed:
                    self._lost.add(routine)

    def _add(self, name: str, routine: Routine) -> None:
        self._routines[name].append(routine)
        self._held[name].add(routine)

    def _line(self, name: str) -> list[str]:
        """A class and those it comes from, as far as the module has them."""
        line: list[str] = []
        while name in self._classes and name not in line:
            line.append(name)
            bases = self._classes[name].bases
            name = bases[0].value.value if len(bases) == 1 and isinstance(bases[0].value, cst.Name) else ""
        return line

    def _rooted(self, name: str) -> bool:
        """Whether nothing behind a class has methods that this reader does not know."""
        bases = self._classes[self._line(name)[-1]].bases
        return all(cst.Module([]).code_for_node(base.value) in _BASES for base in bases)

    def _maker(self, name: str) -> Routine | None:
        """What making an object of a class calls."""
        return next((self._makers[item] for item in self._line(name) if item in self._makers), None)

    def _blind(self) -> bool:
        """Whether names are made at run time, or classes taken from objects."""
        for node in walk(self._module):
            match node:
                case cst.Name(value=name) if name in _BLIND:
                    return True
                case cst.Call(func=cst.Name("getattr"), args=[_, cst.Arg(value=value), *_]) if not isinstance(
                    value, cst.SimpleString
                ):
                    return True
                case cst.Call(func=cst.Call(func=cst.Name("type"))) | cst.Assign(value=cst.Call(func=cst.Name("type"))):
                    return True
                case cst.Attribute(value=value, attr=cst.Name("__init__" | "__call__")) if not is_super(value):
                    return True
                case cst.Call(func=cst.Name("super"), args=[_, *_]):
                    return True
                case cst.Match() | cst.Global() | cst.Nonlocal():
                    return True
        return False

    # ---------------------------------------------------------------- statements

    def _statement(self, node: cst.CSTNode, kind: str | None) -> None:
        """Note what a statement puts where; ``kind`` is the class around it."""
        match node:
            case cst.ClassDef(name=cst.Name(name), body=body):
                if self._classes.get(name) is not node:
                    self._held[name].add(_ANYTHING)
                for base in node.bases:
                    self._expression(base.value, "", kind)
                for item in (*node.keywords, *node.decorators):
                    self._statement(item, kind)
                self._statement(body, name)
            case cst.FunctionDef(params=params, body=body):
                for decorator in node.decorators:
                    self._statement(decorator, kind)
                if id(node) not in self._seen:  # in a function, or in a class in one
                    self._held[node.name.value].add(_ANYTHING)
                    for param in (*params.posonly_params, *params.params, *params.kwonly_params):
                        self._held[param.name.value].add(_ANYTHING)
                for param in (*params.posonly_params, *params.params, *params.kwonly_params):
                    if param.default is not None:
                        self._expression(param.default, param.name.value, kind)
                for star in (params.star_arg, params.star_kwarg):
                    if isinstance(star, cst.Param):
                        self._held[star.name.value].add(_ANYTHING)
                self._statement(body, kind)
            case cst.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target.target, value, kind)
            case cst.AnnAssign(target=target, value=cst.BaseExpression() as value):
                self._assign(target, value, kind)
            case cst.Expr(value=value):
                self._expression(value, "", kind)
            case cst.If(test=test) | cst.While(test=test):
                self._expression(test, "", kind)
                self._statement(node.body, kind)
                if node.orelse is not None:
                    self._statement(node.orelse, kind)
            case cst.For(iter=items):
                self._unknown_targets(node)
                self._expression(items, _ANYTHING, kind)
                self._statement(node.body, kind)
                if node.orelse is not None:
                    self._statement(node.orelse, kind)
            case cst.BaseExpression():
                self._expression(node, _ANYTHING, kind)
            case cst.Annotation():
                pass
            case _:
                self._unknown_targets(node)
                for child in node.children:
                    self._statement(child, kind)

    def _unknown_targets(self, node: cst.CSTNode) -> None:
        """Loops, ``with``, imports and the like bind names to what this reader does not follow."""
        target: cst.CSTNode | None = None
        match node:
            case cst.For(target=target) | cst.CompFor(target=target) | cst.AugAssign(target=target):
                pass
            case cst.AsName(name=target) | cst.NamedExpr(target=target) | cst.ImportAlias(name=target):
                pass
        if target is not None:
            for name in target_names(target):
                self._held[name].add(_ANYTHING)

    def _assign(self, target: cst.BaseExpression, value: cst.BaseExpression, kind: str | None) -> None:
        match target, value:
            case ((cst.Name(name) | cst.Attribute(attr=cst.Name(name))), _):
                self._expression(value, name, kind)
            case (cst.Tuple(elements=left), cst.Tuple(elements=right)) if len(left) == len(right):
                for one, other in zip(left, right, strict=True):
                    self._assign(one.value, other.value, kind)
            case _:
                for name in target_names(target):
                    self._held[name].add(_ANYTHING)
                self._expression(value, _ANYTHING, kind)

    # --------------------------------------------------------------- expressions

    def _expression(self, node: cst.BaseExpression, into: str, kind: str | None) -> None:
        """Note where the value of an expression goes, and the calls in it."""
        self._edges.append((node, into))
        match node:
            case cst.Name():
                pass
            case cst.Attribute(value=value):
                self._expression(value, "", kind)
            case cst.IfExp(test=test, body=body, orelse=orelse):
                self._expression(test, "", kind)
                self._expression(body, into, kind)
                self._expression(orelse, into, kind)
            case cst.BooleanOperation(left=left, right=right):
                self._expression(left, into, kind)
                self._expression(right, into, kind)
            case cst.Comparison(left=left, comparisons=items):
                for value in (left, *(item.comparator for item in items)):
                    self._expression(value, "", kind)
            case cst.Call():
                self._call(node, kind)
            case cst.UnaryOperation(operator=cst.Not(), expression=value):
                self._expression(value, "", kind)
            case cst.Lambda(params=params):
                for param in params.params:
                    self._held[param.name.value].add(_ANYTHING)
                self._expression(node.body, _ANYTHING, kind)
            case _:
                self._unknown_targets(node)
                for child in node.children:
                    self._inside(child, kind)

    def _inside(self, node: cst.CSTNode, kind: str | None) -> None:
        if isinstance(node, cst.BaseExpression):
            self._expression(node, _ANYTHING, kind)
            return
        self._unknown_targets(node)
        for child in node.children:
            if not (isinstance(node, cst.CompFor) and child is node.target):
                self._inside(child, kind)

    def _call(self, node: cst.Call, kind: str | None) -> None:
        match node.func:
            case cst.Name(name) if name in _ASKING:
                for arg in node.args:
                    for part in arg.value.elements if isinstance(arg.value, cst.Tuple) else [arg]:
                        self._expression(part.value, "", kind)
                return
            case cst.Name("super"):
                return
            case cst.Attribute(value=value, attr=cst.Name("__init__")) if is_super(value):
                bases = self._classes[kind].bases if kind in self._classes else ()
                base = bases[0].value if len(bases) == 1 else node.func
                called, args = base, node.args
            case _ if is_partial(node):
                called, args = node.args[0].value, node.args[1:]
                self._expression(called, "" if only_keywords(args) else _ANYTHING, kind)
            case _:
                called, args = node.func, node.args
                self._expression(called, "", kind)
        for arg in args:
            self._expression(arg.value, "", kind)
        self._sites.append((Site(node=node, args=args), called))

    # --------------------------------------------------------------------- flow

    def _spread(self) -> bool:
        """Carry what is held one step further; False where nothing changes."""
        before = sum(map(len, self._held.values())) + len(self._lost)
        before += sum(len(site.reached) + site.open for site, _ in self._sites)
        for node, into in self._edges:
            self._put(node, into)
        for routine in self._lost:
            for name in parameters(routine):
                self._held[name].add(_ANYTHING)
        for site, called in self._sites:
            found = self._values(called) if isinstance(called, cst.BaseExpression) else {_ANYTHING}
            site.reached |= {item for item in found if isinstance(item, Routine)}
            site.open = site.open or any(isinstance(item, str) for item in found)
            # A call of what holds nothing yet may reach nothing at all; of PyTorch's it reaches anything.
            for routine in site.reached:
                self._pass(site, routine)
            if site.open:
                for arg in site.args:
                    self._put(arg.value, _ANYTHING)
        after = sum(map(len, self._held.values())) + len(self._lost)
        after += sum(len(site.reached) + site.open for site, _ in self._sites)
        return after != before

    def _pass(self, site: Site, routine: Routine) -> None:
        names = parameters(routine)
        for place, arg in enumerate(site.args):
            into = _ANYTHING
            if arg.keyword is not None and arg.keyword.value in names:
                into = arg.keyword.value
            elif arg.keyword is None and not arg.star and place < len(routine.params):
                into = routine.params[place]
            if arg.star:  # it may fill any of them
                for name in names:
                    self._held[name].add(_ANYTHING)
            self._put(arg.value, into)

    def _put(self, node: cst.BaseExpression, into: str) -> None:
        if not into:
            return
        values = self._values(node)
        if into == _ANYTHING:
            self._lost |= {item for item in values if isinstance(item, Routine)}
        else:
            self._held[into] |= values

    def _values(self, node: cst.BaseExpression) -> set[Routine | str]:
        """What an expression may be, itself."""
        match node:
            case cst.Name("None"):
                return set()
            case cst.Name(name) if name in self._classes:
                maker = self._maker(name)
                return {maker if maker is not None else _ANYTHING, *self._held.get(name, ())}
            case cst.Name(name):
                return self._held.get(name, {_ANYTHING})
            case cst.Attribute(value=cst.Name(owner), attr=cst.Name(name)):
                own = not self._set and (owner in ("self", "cls") or owner in self._classes)
                return self._held.get(name, {_ANYTHING}) | (set() if own else {_ANYTHING})
            case cst.Attribute(attr=cst.Name(name)):
                return self._held.get(name, set()) | {_ANYTHING}
            case cst.IfExp(body=left, orelse=right) | cst.BooleanOperation(left=left, right=right):
                return self._values(left) | self._values(right)
            case cst.Call() if is_partial(node):
                return self._values(node.args[0].value) if only_keywords(node.args[1:]) else {_ANYTHING}
        return {_ANYTHING}
