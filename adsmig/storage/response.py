"""What a store answered, all of it read."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from adsmig.storage.http import Headers
from adsmig.storage.xmltree import root_of


@dataclass(slots=True)
class Response:
    """A read answer: status, lower-case headers, the whole body."""

    status: int
    headers: Headers
    body: bytes = b""

    def header(self, name: str, default: str = "") -> str:
        """A header's value, by its name in lower case."""
        return self.headers.get(name, default)

    @property
    def etag(self) -> str:
        """The ETag without quotes or weakness mark; '' if there is none."""
        return self.header("etag").removeprefix("W/").strip('"')

    def xml(self) -> ElementTree.Element:
        """The body's root element, namespaces dropped; errors as of xmltree.root_of."""
        root = root_of(self.body)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root
