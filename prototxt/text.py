"""Prototxt text -> Message, and back.

protobuf's own text_format would do, but for three things: it refuses a file for the first field of a fork, it drops what it
does not know, and it is slow (2 MB/s). Here one regular expression takes a whole `name: value` at a time; what it cannot
take (lists, joined strings, escapes, `- 4`, every mistake) goes token by token through the careful half below.

Known fields are read as strictly as protobuf 3.21's C++ parser does: a field that is not repeated may stand once, `010` is no
float, `ave` no pooling method. Unknown fields are kept with their place. Conformance: formats/text.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from .errors import CaffeTextError
from .files import TEXT_LIMIT, read_file
from .floats import NAN, shortest
from .message import Message, Word
from .schema import INTEGERS, UNKNOWN, Field, Kind, kind

DEPTH_LIMIT = 100  # of nested messages, as protobuf's readers have it; a net nests 5 deep

_SKIP = r"\s*(?:\#[^\n]*(?:\n\s*|\Z))*"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NUMBER = r"(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?)"

# One step of the fast half: 1 name, then 2 a word or number | 3 a string | 4 an opening; or 5 a closing.
_STEP = re.compile(
    rf"""(?:({_NAME}){_SKIP}
           (?: :{_SKIP} (?: (-?(?:{_NUMBER}|{_NAME})) (?=[\s}}>\#;,]|\Z)
                          | ("[^"\\\n\0]*"|'[^'\\\n\0]*') (?!\s*["'\#]) ) {_SKIP}[;,]?
             | (?::{_SKIP})? ([{{<]) )
         | ([}}>]){_SKIP}[;,]? ) {_SKIP}""",
    re.ASCII | re.VERBOSE,
)
_WORD, _STRING, _OPEN = 2, 3, 4

_START = re.compile(_SKIP, re.ASCII)
_TOKEN = re.compile(
    rf"""(?P<name>{_NAME}) | (?P<number>[0-9.][0-9A-Za-z_.]*(?:(?<=[eE])[-+][0-9A-Za-z_.]*)?)
       | (?P<string>"(?:[^"\\\n\0]|\\[^\n\0])*"|'(?:[^'\\\n\0]|\\[^\n\0])*') | (?P<sign>[-{{}}<>\[\]:;,]) | (?P<other>.)""",
    re.ASCII | re.VERBOSE | re.DOTALL,
)
_CLOSER = {"{": "}", "<": ">"}
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # bytes that no prototxt has


def parse(path: str | Path, kind: str = "net") -> Message:
    """The message in a prototxt, as written: `kind` is "net", "solver" or the name of a message type.

    CaffeTextError (place, line, caret) for anything that Caffe's reader refuses but fields that no schema knows: those are kept.
    """
    return parse_text(read_text(path), kind, path)


def read_text(path: str | Path) -> str:
    """The text of a prototxt; bytes that are not UTF-8 become surrogates. CaffeTextError for a binary file."""
    data = read_file(path, limit=TEXT_LIMIT)
    if _BINARY.search(data[:4096]):
        raise CaffeTextError(path, 1, 1, "this is a binary file, not a prototxt; a .caffemodel goes where weights are asked for")
    return data.decode("utf-8", "surrogateescape")


def parse_text(text: str, kind: str = "net", path: str | Path = "<text>") -> Message:
    """The message in `text`; `path` is for error messages only."""
    name = {"net": "NetParameter", "solver": "SolverParameter"}.get(kind, kind)
    return _Reader(text, path).read(name)


_OTHERS = {  # by message: what is read, what the file may be instead, and what to give then
    "NetParameter": ("net", "solver", "give the net that the solver names"),
    "SolverParameter": ("solver", "net", 'a solver names its net: net: "FILE"'),
}


class _Problem(Exception):
    """What is wrong, inside a conversion that does not know its place."""


class _Reader:
    """One pass over one text."""

    def __init__(self, text: str, path: str | Path) -> None:
        self.text, self.path = text, path
        self._no_mistakes: set[tuple[Kind, str]] = set()  # unknown scalars that were looked at
        self._depth = 0  # of messages around the place where the careful half is

    # The fast half ----------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Message:
        """The whole text as one message. One loop without calls on the usual way: this is what reading costs."""
        text, step = self.text, _STEP.match
        root = message = Message(kind(name), at=0)
        fields, values = message.kind.fields, message.values
        stack: list[tuple[Message, str]] = []
        converted: dict[tuple[Field, str], Any] = {}
        pos, end = self._skip(0), len(text)
        while pos < end:
            m = step(text, pos)
            if m is None:
                self._depth = len(stack)
                pos, opened = self._careful(pos, message)
                if opened is None:
                    continue
                message = self._open(stack, message, *opened)
            elif m.lastindex == 5:  # a closing
                if not stack:
                    self._fail(pos, f"{text[pos]!r} closes nothing; no message is open here")
                if text[pos] != stack[-1][1]:
                    self._fail(pos, f"expected {stack[-1][1]!r}, found {text[pos]!r}")
                message = stack.pop()[0]
                pos = m.end()
            else:
                name, at = m[1], pos
                pos = m.end()
                field = fields.get(name)
                if m.lastindex == _OPEN:
                    opened_here = self._inner(field, at, m.start(4))
                    self._keep(message, name, at, opened_here) if field is None else self._add(message, field, opened_here, at)
                elif field is None:
                    self._keep(message, name, at, _string([m[3]]) if m.lastindex == _STRING else self._guess(m[2], at))
                else:
                    group = m.lastindex or 0
                    key = (field, m[group])
                    value = converted.get(key)
                    if value is None:
                        value = converted[key] = self._convert(field, m[group], m.start(group))
                    if field.repeated:
                        values.setdefault(name, []).append(value)
                    elif name in values:
                        self._twice(at, name)
                    else:
                        values[name] = value
                if m.lastindex != _OPEN:
                    continue
                message = self._open(stack, message, opened_here, _CLOSER[m[4]])
            fields, values = message.kind.fields, message.values
        if stack:
            self._fail(end, f"the file ends inside {stack[-1][0].kind.name or 'a message'}: expected {stack[-1][1]!r}; opened", message.at)
        return root

    def _inner(self, field: Field | None, at: int, brace: int) -> Message:
        """The message that a field opens."""
        if field is not None and field.type != "message":
            self._fail(brace, f"{field.name!r} expects {_expected(field)}, found {self.text[brace]!r}")
        return Message(kind(field.message) if field else UNKNOWN, at=at)

    def _open(self, stack: list[tuple[Message, str]], outer: Message, inner: Message, closer: str) -> Message:
        if len(stack) >= DEPTH_LIMIT:
            self._fail(inner.at, f"messages nest more than {DEPTH_LIMIT} deep")
        stack.append((outer, closer))
        return inner

    # The careful half: one field, token by token ----------------------------------------------------------------------

    def _careful(self, pos: int, message: Message) -> tuple[int, tuple[Message, str] | None]:
        """Read one field from `pos`: the position behind it, and the message that it opens with its closer, if it does."""
        at, (what, name, pos) = pos, self._token(pos)
        if what != "name":
            template = "; {{ is how a template of Python's str.format writes a brace: fill it in first" if name == "{" else ""
            self._fail(at, f"expected the name of a field, found {_shown(name)}{template}")
        field = message.kind.fields.get(name)
        what, token, after = self._token(pos)
        colon = token == ":"
        if colon:
            pos = after
            what, token, after = self._token(pos)
        if token == "[":
            pos = self._list(after, message, field, name, at)
        elif token in _CLOSER and what == "sign":
            inner = self._inner(field, at, pos)
            self._keep(message, name, at, inner) if field is None else self._add(message, field, inner, at)
            return after, (inner, _CLOSER[token])
        elif not colon:
            self._fail(pos, f"expected ':' and a value, or '{{', behind {name!r}, found {_shown(token)}")
        else:
            value, pos = self._value(pos, field, name)
            self._keep(message, name, at, value) if field is None else self._add(message, field, value, at)
        what, token, after = self._token(pos)
        return (after if token in (";", ",") else pos), None

    def _list(self, pos: int, message: Message, field: Field | None, name: str, at: int) -> int:
        if field is not None and not field.repeated:
            self._fail(pos - 1, f"{name!r} takes one value, not a list")
        _, token, after = self._token(pos)
        if token == "]":
            return after
        while True:
            _, token, after = self._token(pos)
            if token in _CLOSER:
                value, pos = self._nested(pos, after, token, field)
            else:
                value, pos = self._value(pos, field, name)
            self._keep(message, name, at, value) if field is None else self._add(message, field, value, at)
            _, token, after = self._token(pos)
            if token == "]":
                return after
            if token != ",":
                self._fail(pos, f"expected ',' or ']' in the list of {name!r}, found {_shown(token)}")
            pos = after

    def _nested(self, pos: int, after: int, opener: str, field: Field | None) -> tuple[Message, int]:
        """A message inside a list, with all that is in it."""
        inner = self._inner(field, pos, pos)
        stack: list[tuple[Message, str]] = []
        opened: tuple[Message, str] | None = (inner, _CLOSER[opener])
        pos = after
        while opened or stack:
            if opened is not None:
                stack.append(opened)
                self._depth += 1
                if self._depth > DEPTH_LIMIT:
                    self._fail(pos, f"messages nest more than {DEPTH_LIMIT} deep")
            _, token, after = self._token(pos)
            opened = None
            if token == stack[-1][1]:
                stack.pop()
                self._depth -= 1
                pos = after
            else:
                pos, opened = self._careful(pos, stack[-1][0])
        return inner, pos

    def _value(self, pos: int, field: Field | None, name: str) -> tuple[Any, int]:
        """One scalar: a word, a number, `- 4`, or strings side by side."""
        at, (what, token, after) = pos, self._token(pos)
        if what == "string":
            parts = []
            while what == "string":
                parts.append((token, pos))
                pos = after
                what, token, after = self._token(pos)
            text = self._joined(parts)
            if field is None:
                return text, pos
            if field.type not in ("string", "bytes"):
                self._fail(at, f"{name!r} expects {_expected(field)}, found {_shown(parts[0][0])}")
            return text, pos
        if token == "-":
            what, token, after = self._token(after)
            token = "-" + token
        if what not in ("name", "number"):
            self._fail(at, f"{name!r} expects {_expected(field)}, found {_shown(token)}")
        pos = after
        return (self._guess(token, at) if field is None else self._convert(field, token, at)), pos

    def _joined(self, parts: list[tuple[str, int]]) -> str:
        try:
            return _string([token for token, _ in parts])
        except _Problem as exc:
            self._fail(parts[0][1], str(exc))

    def _token(self, pos: int) -> tuple[str, str, int]:
        m = _TOKEN.match(self.text, pos)
        if m is None:
            return "end", "", pos
        if m.lastgroup == "other" and m[0] in "\"'":
            line = self.text[pos:].split("\n", 1)
            problem = "this string is not closed" if len(line) == 1 else "a string may not cross the end of its line"
            self._fail(pos, problem if "\0" not in line[0] else "a string may not hold a NUL byte")
        return m.lastgroup or "", m[0], self._skip(m.end())

    def _skip(self, pos: int) -> int:
        return _START.match(self.text, pos).end()  # type: ignore[union-attr]

    # Values -----------------------------------------------------------------------------------------------------------

    def _convert(self, field: Field, token: str, at: int) -> Any:
        try:
            return _CONVERTERS[field.type](field, token)
        except _Problem as exc:
            self._fail(at, str(exc))

    def _guess(self, token: str, at: int) -> Any:
        """A value of an unknown field: a number where it looks like one, else the word."""
        try:
            return _integer_of(token)
        except _Problem:
            pass
        try:
            return _float_of(token)
        except _Problem:
            if not re.fullmatch(_NAME, token):
                self._fail(at, f"{_shown(token)} is no value")
            return {"true": True, "false": False}.get(token, Word(token))

    def _add(self, message: Message, field: Field, value: Any, at: int) -> None:
        if field.repeated:
            message.values.setdefault(field.name, []).append(value)
        elif field.name in message.values:
            self._twice(at, field.name)
        else:
            message.values[field.name] = value

    def _keep(self, message: Message, name: str, at: int, value: Any) -> None:
        self._refuse_other_file(message.kind, name, at)
        if not isinstance(value, Message) and (message.kind, name) not in self._no_mistakes:
            self._refuse_mistake(message.kind, name, at)
            self._no_mistakes.add((message.kind, name))
        if name not in message.unknown:
            self._refuse_json_name(message, name, at)
        message.unknown.setdefault(name, []).append(value)
        message.places.setdefault(name, at)

    def _refuse_other_file(self, kind_: Kind, name: str, at: int) -> None:
        """A solver where a net is asked for, or a net where a solver is."""
        read, other, way_out = _OTHERS.get(kind_.name, ("", "", ""))
        if other and name in kind(f"{other.capitalize()}Parameter").fields:
            self._fail(at, f"{name!r} is a field of a {other}, and this is read as a {read}; {way_out}")

    def _refuse_json_name(self, message: Message, name: str, at: int) -> None:
        """`convolutionParam { }` is no fork's message, but protobuf's other spelling, which its text does not take."""
        plain = name.lower().replace("_", "")
        known = next((field for field in message.kind.fields if field.replace("_", "") == plain), None)
        if known is not None:
            self._fail(at, f"{message.kind.name} has no field {name!r}; did you mean {known!r}?")

    def _refuse_mistake(self, kind_: Kind, name: str, at: int) -> None:
        """Forks bring messages, seldom scalars: an unknown scalar that is nearly a known field, or that belongs into a message
        beside it, is a mistake. Solvers have no plug-in that could read it."""
        near = get_close_matches(name.lower(), list(kind_.fields), n=1, cutoff=0.8)
        homes = [f.name for f in kind_.fields.values() if f.message and not f.fork and name in kind(f.message).fields]
        if near or homes or kind_.name == "SolverParameter":
            hint = f"did you mean {near[0]!r}?" if near else f"it belongs into {' or '.join(homes[:3])} {{ }}" if homes else ""
            self._fail(at, f"{kind_.name} has no field {name!r}" + (f"; {hint}" if hint else did_you_mean(name, kind_.fields)))

    # Errors -----------------------------------------------------------------------------------------------------------

    def _twice(self, at: int, name: str) -> NoReturn:
        self._fail(at, f"{name!r} stands here a second time and may stand once; remove one of the two")

    def _fail(self, at: int, problem: str, opened: int | None = None) -> NoReturn:
        if opened is not None:
            line, column = position(self.text, opened)
            problem = f"{problem} at {line}:{column}"
        raise text_error(self.path, self.text, at, problem)


def position(text: str, at: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def text_error(path: str | Path, text: str, at: int, problem: str) -> CaffeTextError:
    """The error for a place in a text: with its line, cut to a window where it is long, and a caret under the place."""
    problem = problem if len(problem) <= 400 else problem[:400] + "..."
    line, column = position(text, at)
    start = at - column + 1
    stop = text.find("\n", at)
    stop = len(text) if stop < 0 else stop
    left, right = max(start, at - 60), min(stop, at + 60)
    shown = "".join(c if c.isprintable() else " " for c in text[left:right])
    head, tail = "..." if left > start else "", "..." if right < stop else ""
    excerpt = f"    {head}{shown}{tail}\n    {' ' * (len(head) + at - left)}^" if shown.strip() else ""
    return CaffeTextError(path, line, column, problem, excerpt)


def did_you_mean(name: str, known: Any) -> str:
    """ "; did you mean 'x'?" for the nearest of `known`, else nothing."""
    near = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _expected(field: Field | None) -> str:
    if field is None:
        return "a value"
    if field.type in INTEGERS:
        return "a whole number" if field.type.startswith("int") else "a whole number, not negative"
    words = {"float": "a number", "double": "a number", "bool": "true or false", "string": "a quoted string", "bytes": "a quoted string"}
    if field.type == "enum":
        names = list(field.values)
        return "one of " + ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return words.get(field.type, "a message in { }")


def _shown(token: str) -> str:
    return "the end of the file" if not token else repr(token if len(token) <= 40 else token[:40] + "...")


def _wrong(field: Field, token: str) -> NoReturn:
    near = did_you_mean(token, {v.lower(): v for v in field.values}) if field.type == "enum" else ""
    near = near.upper().replace("; DID YOU MEAN", "; did you mean") if near else ""
    raise _Problem(f"{field.name!r} expects {_expected(field)}, found {_shown(token)}{near}")


_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:(?:0|[1-9][0-9]*|[0-9]+(?=\.)(?<!^0\d))(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?")
_SPECIAL = {"inf": float("inf"), "infinity": float("inf"), "nan": NAN}
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}


def _integer_of(token: str) -> int:
    if len(token) > 40 or not _INTEGER.fullmatch(token):
        raise _Problem
    digits = token.removeprefix("-")
    value = int(digits, 16 if digits[1:2] in "xX" and len(digits) > 1 else 8 if digits[0] == "0" and len(digits) > 1 else 10)
    return -value if token[0] == "-" else value


def _integer(field: Field, token: str) -> int:
    try:
        value = _integer_of(token)
    except _Problem:
        _wrong(field, token)
    low, high = INTEGERS[field.type]
    if not low <= value <= high or (low == 0 and token[0] == "-"):
        raise _Problem(f"{field.name!r} takes {low} to {high}, found {token}")
    return value


def _float_of(token: str) -> float:
    sign, digits = (-1.0, token[1:]) if token[:1] == "-" else (1.0, token)
    special = _SPECIAL.get(digits.lower())
    if special is not None:
        return sign * special if special is not NAN else NAN
    if not _FLOAT.fullmatch(digits) or re.match(r"0[0-9]", digits):
        raise _Problem
    return sign * float(digits.rstrip("fF"))


def _float(field: Field, token: str) -> float:
    try:
        value = _float_of(token)
    except _Problem:
        _wrong(field, token)
    return shortest(value) if field.type == "float" else value


def _bool(field: Field, token: str) -> bool:
    if token in _BOOLS:
        return _BOOLS[token]
    try:
        value = _integer_of(token)
    except _Problem:
        value = -1
    if value not in (0, 1):
        _wrong(field, token)
    return bool(value)


def _enum(field: Field, token: str) -> str:
    if token in field.values:
        return token
    try:
        number = _integer_of(token)
    except _Problem:
        _wrong(field, token)
    return next((word for word, n in field.values.items() if n == number), None) or _wrong(field, token)


def _quoted(field: Field, token: str) -> str:
    if token[0] not in "\"'":
        _wrong(field, token)
    return _string([token])


_CONVERTERS = {
    **dict.fromkeys(INTEGERS, _integer),
    "float": _float,
    "double": _float,
    "bool": _bool,
    "enum": _enum,
    "string": _quoted,
    "bytes": _quoted,
    "message": _wrong,
}

_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIMPLE = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\\": b"\\",
    b"'": b"'",
    b'"': b'"',
    b"?": b"?",
}


def _string(tokens: list[str]) -> str:
    """The text of quoted strings side by side; bytes that are not UTF-8 become surrogates, as in file names."""
    if len(tokens) == 1 and "\\" not in tokens[0]:
        return tokens[0][1:-1]
    raw = b"".join(_ESCAPE.sub(_escape, token[1:-1].encode("utf-8", "surrogateescape")) for token in tokens)
    return raw.decode("utf-8", "surrogateescape")


def _escape(m: re.Match[bytes]) -> bytes:
    octal, hexa, short, long, simple = m.groups()
    if octal or hexa:
        value = int(octal, 8) if octal else int(hexa, 16)
        if value > 255:
            raise _Problem(f"the escape {m[0].decode()!r} is larger than a byte")
        return bytes([value])
    if short or long:
        code = int(short or long, 16)
        if code > 0x10FFFF:
            raise _Problem(f"the escape {m[0].decode()!r} is no character")
        return chr(code).encode("utf-8", "surrogatepass")
    if simple not in _SIMPLE:
        raise _Problem(f"\\{simple.decode('latin-1')} is no escape; a backslash is written \\\\")
    return _SIMPLE[simple]


# Writing --------------------------------------------------------------------------------------------------------------


def to_text(message: Message) -> str:
    """The message as Caffe prints it: two spaces a level, enums as words, floats as the shortest decimal of their float32."""
    lines: list[str] = []
    _write(message, "", lines)
    return "".join(f"{line}\n" for line in lines)


def _write(message: Message, indent: str, lines: list[str]) -> None:
    for field, value in message.written():
        for item in value if field.repeated else [value]:
            _write_field(field.name, item, field, indent, lines)
    for name, items in message.unknown.items():
        for item in items:
            _write_field(name, item, None, indent, lines)


def _write_field(name: str, value: Any, field: Field | None, indent: str, lines: list[str]) -> None:
    if isinstance(value, Message):
        lines.append(f"{indent}{name} {{")
        _write(value, indent + "  ", lines)
        lines.append(f"{indent}}}")
    else:
        lines.append(f"{indent}{name}: {_scalar(value, field)}")


def _scalar(value: Any, field: Field | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word) or (field is not None and field.type == "enum"):
        return str(value)
    if isinstance(value, str):
        return '"' + _escaped(value) + '"'
    if isinstance(value, float):
        return _decimal(value)
    return str(value)


def _decimal(value: float) -> str:
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return repr(value).removesuffix(".0")


_PRINTED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\"}


def _escaped(text: str) -> str:
    return "".join(_PRINTED.get(c, c) if (c >= " " and c != "\x7f" and not "\ud800" <= c <= "\udfff") or c in _PRINTED else _octal(c) for c in text)


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
