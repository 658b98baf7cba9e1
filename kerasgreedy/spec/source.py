"""YAML text -> plain data, remembering where every value stood.

Only plain YAML is read: mappings, lists, strings, numbers, true/false, null. Tags never construct objects.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kerasgreedy.errors import Problem, SpecError
from kerasgreedy.files import read_bytes, user_path
from kerasgreedy.strict_json import MAX_DIGITS

Path_ = tuple[str | int, ...]
# A document of people is far below these; they bound the time and memory that any file can cost.
MAX_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 60
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_CONVERTED = {f"{_TAG}{kind}" for kind in ("int", "float", "bool", "null")}
_PLAIN = {
    yaml.MappingNode: {f"{_TAG}map"},
    yaml.SequenceNode: {f"{_TAG}seq"},
    yaml.ScalarNode: {f"{_TAG}str", *_CONVERTED},
}


# What a value begins with that is not a plain word; and what would end a plain word before its end.
_INDICATORS = (*"\"'[{|>&*!%@`", "")
_CUT = re.compile(r"(?:^|\s)#|[\r\n]")


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 words: `5e-4` is a number, and only true and false are booleans."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":int", ":float", ":timestamp"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MAX_NODES:  # before they fill the memory
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_NODES} values", self.peek_event().start_mark)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    "-+.0123456789",
)


class Source:
    """A YAML document: its plain data, and the line and column of every key and value.

    Args:
        text: YAML text.
        name: what to call the document in messages, usually its file name.

    Raises:
        SpecError: the text is not plain YAML, holds a key twice, or is not a mapping.
    """

    def __init__(self, text: str, name: str):
        self.name = name
        self._marks: dict[Path_, tuple[int, int]] = {}
        self._nodes = 0
        self._open: list[int] = []
        self.problems: list[Problem] = []
        loader: _Loader | None = None
        try:
            loader = _Loader(text)
            self._loader = loader
            node = loader.get_single_node()
            self.data: Any = {} if node is None else self._convert(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise SpecError([self._problem(mark, "", f"not valid YAML: {error.problem or error.context}")]) from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
            raise SpecError(
                [Problem(where, "", f"not valid YAML: character #x{ord(text[error.position]):04x}: {error.reason}")]
            ) from None
        except (yaml.YAMLError, UnicodeError) as error:
            raise SpecError([Problem(f"{name}:1:1", "", f"not valid YAML: {error}")]) from None
        except RecursionError:
            raise SpecError([Problem(f"{name}:1:1", "", "nested too deeply")]) from None
        finally:
            if loader is not None:
                loader.dispose()
        if self.problems:
            raise SpecError(self.problems)
        if not isinstance(self.data, dict):
            kind = "a list" if isinstance(self.data, list) else f"{self.data!r}"
            raise SpecError([Problem(f"{name}:1:1", "", f"received {kind}; allowed: a mapping of keys to values")])

    @classmethod
    def read(cls, path: str | Path) -> "Source":
        """Reads a file, or raises `SpecError` saying what is wrong with it."""
        path = user_path(path)
        try:
            return cls(read_bytes(path, MAX_BYTES).decode("utf-8"), str(path))
        except FileNotFoundError:
            fault = "no such file"
        except IsADirectoryError:
            fault = "is a folder; allowed: a YAML file"
        except UnicodeDecodeError as error:
            fault = f"not UTF-8 text (byte {error.start}); allowed: a YAML file"
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        raise SpecError([Problem(str(path), "", fault)])

    def locate(self, path: Path_) -> str:
        """`file:line:column` of the nearest enclosing place that the document holds."""
        while path and path not in self._marks:
            path = path[:-1]
        line, column = self._marks.get(path, (1, 1))
        return f"{self.name}:{line}:{column}"

    def _problem(self, mark: Any, path: str, message: str) -> Problem:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return Problem(f"{self.name}:{line}:{column}", path, message)

    def _convert(self, node: yaml.Node, path: Path_) -> Any:
        self._count(node, 1)
        self._marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if not self._is_plain(node, path):
            return None
        with self._inside(node):
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._convert(child, (*path, i)) for i, child in enumerate(node.value)]
            return self._scalar(node)

    def _count(self, node: yaml.Node, more: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise SpecError([self._problem(node.start_mark, "", f"more than {MAX_NODES} values once aliases are followed")])

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        if len(self._open) > MAX_DEPTH:
            raise SpecError([self._problem(node.start_mark, "", f"nested too deeply (more than {MAX_DEPTH} levels)")])
        if id(node) in self._open:
            raise SpecError([self._problem(node.start_mark, "", "an alias that contains itself")])
        self._open.append(id(node))
        try:
            yield
        finally:
            self._open.pop()

    def _is_plain(self, node: yaml.Node, path: Path_) -> bool:
        """Whether a node has no tag, or the one that it would have had; PyYAML would read `!!int 1:2` and `!!bool x` anyhow."""
        plain = node.tag in _PLAIN[type(node)]
        if node.tag in _CONVERTED:
            plain = plain and self._loader.resolve(yaml.ScalarNode, node.value, (True, False)) == node.tag
        if not plain:
            self.problems.append(
                self._problem(node.start_mark, ".".join(map(str, path)), f"received the tag {node.tag}; allowed: plain YAML")
            )
        return plain

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self._loader.construct_object(node)
            if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
                raise ValueError(f"a number of {len(node.value)} digits")
            return value
        except ValueError as error:
            raise SpecError([self._problem(node.start_mark, "", f"not valid YAML: {error}")]) from None

    def _merged(self, node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
        """Keys and values of a mapping, those that `<<` brings first, so that its own come after them."""
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in reversed(sources):  # of several, the first one wins
                    if not isinstance(source, yaml.MappingNode):
                        raise SpecError([self._problem(source.start_mark, "", "'<<' takes a mapping, or a list of mappings")])
                    with self._inside(source):
                        merged += self._merged(source)
        self._count(node, len(merged))
        return [*merged, *((key, value) for key, value in node.value if key.tag != _MERGE)]

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        own = {id(key) for key, _ in node.value}
        result: dict[str, Any] = {}
        first_seen: dict[str, yaml.Node] = {}
        for key_node, value_node in self._merged(node):
            plain = isinstance(key_node, yaml.ScalarNode) and self._is_plain(key_node, path)
            key = self._scalar(key_node) if plain else None
            if isinstance(key, bool) or not isinstance(key, str | int):
                self.problems.append(self._problem(key_node.start_mark, ".".join(map(str, path)), "a key must be a word"))
                continue
            key = str(key)
            inside = (*path, key)
            if key in first_seen and id(key_node) in own and id(first_seen[key]) in own:
                line = first_seen[key].start_mark.line + 1
                message = f"key given twice (first on line {line})"
                self.problems.append(self._problem(key_node.start_mark, ".".join(map(str, inside)), message))
            first_seen[key] = key_node
            self._marks[inside] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self._convert(value_node, inside)
        return result


def parse_value(text: str) -> Any:
    """The plain YAML value of one piece of text, as used by `--set key=value`.

    The whole text is the value: what YAML would take for a comment, or fold into one line, is part of a word.

    Raises:
        SpecError: it is no YAML; or a comment stands behind a quoted text, a list or a mapping.
    """
    word = text.strip()
    if word[:1] not in _INDICATORS and _CUT.search(word):
        return word
    value = Source(f"value: {text}" if word else "value: null", "--set").data["value"]
    ends = [token.end_mark.index for token in yaml.scan(text) if token.end_mark and not isinstance(token, yaml.StreamEndToken)]
    rest = text[max(ends, default=0) :].strip()
    if rest:
        raise SpecError([Problem("--set", "", f"received {rest!r} behind the value; allowed: a comment in files only")])
    return value
