"""Where in a YAML file a value stands, and keys that stand there twice."""

from collections.abc import Iterator

import yaml

from deployments.checking.problem import Place, Problem


class Lines:
    """The lines of a YAML document, counted from 1.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """

    def __init__(self, text: str) -> None:
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def of(self, place: Place) -> int | None:
        """Find the line of a value's key, or of the nearest thing around it that is there."""
        return self._nearest(place)[0]

    def identity(self, place: Place) -> tuple[int, Place]:
        """Name what stands there: the same for an anchor and for its aliases."""
        _, node, beyond = self._nearest(place)
        return id(node), beyond

    def _nearest(self, place: Place) -> tuple[int | None, yaml.Node | None, Place]:
        node, line = self._root, None
        for depth, part in enumerate(place):
            found = _child(node, part)
            if found is None:
                return line, node, place[depth:]
            line, node = found
        return line, node, ()

    def repeated_keys(self) -> Iterator[Problem]:
        """Name the keys that a mapping holds twice: YAML readers keep the last and say nothing."""
        yield from _repeated(self._root, (), set())


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if key.value == str(part):
                return key.start_mark.line + 1, value
    return None


def _repeated(node: yaml.Node | None, place: Place, seen: set[int]) -> Iterator[Problem]:
    # An anchor's node stands at every alias.
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*place, index), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                wrong = (
                    f"stands here twice, in lines {lines[key.value]} and {line}; only the last would count"
                )
                yield Problem((*place, key.value), wrong, "one of the two")
            lines[key.value] = line
            yield from _repeated(value, (*place, key.value), seen)
