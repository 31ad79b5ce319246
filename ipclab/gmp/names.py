"""Names of what cannot travel by value: functions, classes, modules, code objects and a module's globals.

A coroutine that moves to another process takes its locals with it, but not its code: that is there already, and what
travels is a name. A function or class goes by its module and qualified name, if that leads back to it and to nothing
else; a code object by the function it is nested in and its place among the constants there, so that lambdas and
functions inside functions have a name too; a module, and the globals of its functions, by the module's name. Code that
no name leads to (made by exec, redefined since) goes by value, marshalled: both sides run the same CPython. Everything
here is slow and happens once for each object and process, because `_frames.Codec` remembers the answers.

A name begins with its kind, and its parts stand between zero bytes:

    m module                                  the module
    g module                                  its dictionary
    p module, qualified name                  what getattr finds on that way
    f module, path, which                     a function that a decorator, a property or the like has wrapped: see c
    c module, path, which, where, checksum    code: `path` leads to an object, of whose functions (it may be decorated,
                                              or a property) it is number `which`; from its code `where` goes on, by
                                              places in co_consts
    v marshalled code                         code by value

A frame goes on at a place in its code: what has the name but not the checksum is not the same, and never found.
"""

from __future__ import annotations

import functools
import marshal
import sys
import types
import zlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Any

#: Code that went or came by value: who sends it back gets the same object, and sends the same bytes.
_code_of_name: dict[bytes, CodeType] = {}
_name_of_code: dict[int, bytes] = {}
#: How far decorators are followed: chosen, more than anybody stacks.
_UNWRAPPED = 16


def name_of(thing: Any, scope: object = None) -> bytes | None:
    """The name under which `find` gives the same thing, in any process with the same modules; None: it has none.

    `scope` is, for code, the globals of its function; for an object that asked to go by a name (__reduce__ returned a
    string) that name.
    """
    if isinstance(thing, CodeType):
        return _code_name(thing, scope) or value_of(thing)
    if isinstance(thing, ModuleType):
        module = _canonical(thing.__name__)
        return _join(b"m", module) if sys.modules.get(module) is thing else None
    if isinstance(thing, dict):
        home = _home_of_globals(thing)
        return _join(b"g", home) if home else None
    return _path_name(thing, scope if isinstance(scope, str) else None)


def value_of(code: CodeType) -> bytes:
    """A name that contains the code itself: for code that the other process has not got."""
    known = _name_of_code.get(id(code))
    if known is None:
        known = b"v" + marshal.dumps(code)
        _remember(_code_of_name.setdefault(known, code), known)
        _remember(code, known)
    return known


def find(name: bytes) -> Any:
    """What `name_of` gave that name for. LookupError: it is not here, or is another one by now."""
    kind = name[:1]
    if kind == b"v":
        return _code_by_value(name)
    try:
        module, *parts = name[1:].decode("utf-8", "surrogatepass").split("\0")
        if kind == b"m":
            return _module(module)
        if kind == b"g":
            return vars(_module(module))
        if kind == b"p":
            return _walk(_module(module), parts[0])
        if kind == b"f":
            return _function(_module(module), *parts)
        if kind == b"c":
            return _find_code(_module(module), *parts)
    except (ImportError, AttributeError, ValueError, TypeError, IndexError) as err:
        raise LookupError(f"{name!r} is not in this process: {err}") from err
    raise LookupError(f"{name!r} is no name")


def _join(kind: bytes, *parts: object) -> bytes:
    return kind + "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")


# --- modules ---------------------------------------------------------------------------------------------------------


def _canonical(module: str) -> str:
    """The name of the script that runs, where multiprocessing has given it another one (__mp_main__)."""
    main = sys.modules.get("__main__")
    return "__main__" if main is not None and sys.modules.get(module) is main else module


def _module(name: str) -> ModuleType:
    module = sys.modules.get(name)
    return import_module(name) if module is None else module


def _home_of_globals(scope: object) -> str | None:
    """The name of the module whose dictionary this is."""
    if not isinstance(scope, dict):
        return None
    module = scope.get("__name__")
    if isinstance(module, str) and getattr(sys.modules.get(module), "__dict__", None) is scope:
        return _canonical(module)
    # Imported under a name that is not its own, as runpy and some test runners do.
    for other, candidate in list(sys.modules.items()):
        if getattr(candidate, "__dict__", None) is scope:
            return _canonical(other)
    return None


def _is_interactive(module: str) -> bool:
    """Whether what is typed next may replace what a name there means: a notebook, the prompt, -c."""
    return module == "__main__" and not hasattr(sys.modules.get(module), "__file__")


# --- what getattr finds ----------------------------------------------------------------------------------------------


def _walk(start: Any, path: str) -> Any:
    for part in path.split("."):
        start = getattr(start, part)
    return start


def _leads_to(module: str, path: str, thing: object) -> bool:
    try:
        return _walk(sys.modules[module], path) is thing
    except (KeyError, AttributeError):
        return False


def _path_name(thing: Any, asked: str | None) -> bytes | None:
    path = asked or getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    module = getattr(thing, "__module__", None)
    if not isinstance(path, str) or "<" in path:
        return None
    if isinstance(module, str):
        module = _canonical(module)
        if _is_interactive(module) and isinstance(thing, FunctionType):
            return None
        if _leads_to(module, path, thing):
            return _join(b"p", module, path)
        if isinstance(thing, FunctionType):
            return _wrapped_name(thing, module, path)
    return _path_elsewhere(thing, path)


def _path_elsewhere(thing: object, path: str) -> bytes | None:
    """Of what does not know its module (some built-in functions), or lies about it (the types of the interpreter)."""
    for name, value in vars(types).items():
        if value is thing:
            return _join(b"p", "types", name)
    if isinstance(thing, type | FunctionType):
        return None
    for module in list(sys.modules):
        if module not in ("__main__", "__mp_main__") and _leads_to(module, path, thing):
            return _join(b"p", module, path)
    return None


def _wrapped_name(thing: FunctionType, module: str, path: str) -> bytes | None:
    home = sys.modules.get(module)
    for which, function in enumerate(_functions(_static(home, path)) if home else ()):
        if function is thing:
            return _join(b"f", module, path, which)
    return None


# --- code ------------------------------------------------------------------------------------------------------------


def _checksum(code: CodeType) -> int:
    """Of what a frame of that code rests on; nested code and values are not part of it."""
    layout = (code.co_varnames, code.co_cellvars, code.co_freevars, code.co_names, code.co_stacksize, code.co_flags)
    return zlib.crc32(repr(layout).encode("utf-8", "surrogatepass"), zlib.crc32(code.co_exceptiontable + code.co_code))


def _functions(thing: Any) -> Iterator[FunctionType]:
    """The plain functions in what a name may lead to: decorated ones, methods of all kinds, properties."""
    todo = [thing]
    seen: set[int] = set()
    while todo and len(seen) < _UNWRAPPED:
        one = todo.pop()
        if id(one) in seen or one is None:
            continue
        seen.add(id(one))
        if isinstance(one, FunctionType):
            yield one
            wrapped = one.__dict__.get("__wrapped__")
            todo.append(wrapped)
        elif isinstance(one, property):
            todo += [one.fdel, one.fset, one.fget]
        elif isinstance(one, staticmethod | classmethod | types.MethodType):
            todo.append(one.__func__)
        elif isinstance(one, functools.partial | functools.partialmethod | functools.cached_property):
            todo.append(one.func)
        elif not isinstance(one, type):
            todo.append(getattr(one, "__dict__", {}).get("__wrapped__"))


def _place(code: CodeType, wanted: CodeType) -> list[int] | None:
    """By which constants the way goes from one code to the other; [] if they are one."""
    if code is wanted:
        return []
    for index, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            rest = _place(constant, wanted)
            if rest is not None:
                return [index, *rest]
    return None


def _members(container: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Everything in a module or class, with its path; static, so that no property runs."""
    for name, value in list(vars(container).items()):
        yield f"{prefix}{name}", value


def _candidates(module: ModuleType, qualname: str) -> Iterator[tuple[str, Any]]:
    """Where code of that qualified name may be: under it, or, if it is a lambda or was renamed, beside it."""
    path = qualname.partition(".<locals>")[0]
    outer, _, last = path.rpartition(".")
    container = _static(module, outer)
    if isinstance(container, type | ModuleType):
        members: Mapping[str, Any] = vars(container)
        if last in members:
            yield path, members[last]
        yield from _members(container, f"{outer}." if outer else "")
    if container is not module:
        yield from _members(module, "")


def _static(start: Any, path: str) -> Any:
    """As _walk, but what it finds is not bound, and nothing runs. None: nothing is there."""
    for part in path.split(".") if path else ():
        start = vars(start).get(part) if isinstance(start, type | ModuleType) else None
    return start


def _code_name(code: CodeType, scope: object) -> bytes | None:
    module = _home_of_globals(scope)
    known = _name_of_code.get(id(code))
    if known is not None or module is None or _is_interactive(module):
        return known
    for path, value in _candidates(sys.modules[module], code.co_qualname):
        for which, function in enumerate(_functions(value)):
            where = _place(function.__code__, code)
            if where is not None:
                return _join(b"c", module, path, which, ".".join(map(str, where)), _checksum(code))
    return None


def _function(module: ModuleType, path: str, which: str) -> FunctionType:
    for function in islice(_functions(_static(module, path)), int(which), None):
        return function
    raise LookupError(f"{path} of {module.__name__} wraps no such function")


def _find_code(module: ModuleType, path: str, which: str, where: str, checksum: str) -> CodeType:
    code: Any = _function(module, path, which).__code__
    for index in where.split(".") if where else ():
        code = code.co_consts[int(index)]
    if not isinstance(code, CodeType) or _checksum(code) != int(checksum):
        raise LookupError(f"{path} of {module.__name__} is not what it was where the coroutine comes from")
    return code


def _remember(code: CodeType, name: bytes) -> None:
    _name_of_code[id(code)] = name
    _kept.append(code)


#: What _name_of_code knows by its id must not be freed.
_kept: list[CodeType] = []


def _code_by_value(name: bytes) -> CodeType:
    code = _code_of_name.get(name)
    if code is None:
        try:
            loaded = marshal.loads(memoryview(name)[1:])
        except (ValueError, EOFError, TypeError) as err:
            raise LookupError(f"code by value that is none: {err}") from err
        if not isinstance(loaded, CodeType):
            raise LookupError("code by value that is none")
        code = _code_of_name[name] = loaded
        _remember(code, name)
    return code


# --- what has no name ------------------------------------------------------------------------------------------------


def reduce(thing: Any) -> Any:
    """How cloudpickle makes a class or function that no name leads to anew elsewhere, as __reduce_ex__ would say it."""
    pickler = _cloudpickler()
    if pickler is None:
        return None
    if isinstance(thing, type | FunctionType | ModuleType):
        reduced = pickler.reducer_override(thing)
        if reduced is NotImplemented and isinstance(thing, ModuleType):
            reduced = pickler.dispatch_table[ModuleType](thing)
        return None if reduced is NotImplemented else reduced
    # What stands in the dictionary of such a class. Not all that cloudpickle knows: it would copy an open file.
    if isinstance(thing, property | classmethod | staticmethod | types.MappingProxyType):
        return pickler.dispatch_table[type(thing)](thing)
    return None


@functools.cache
def _cloudpickler() -> Any:
    try:
        import cloudpickle
    except ImportError:
        return None
    import io

    return cloudpickle.CloudPickler(io.BytesIO(), protocol=5)
