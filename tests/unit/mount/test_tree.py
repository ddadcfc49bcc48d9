"""What is kept of what the store has told."""

from __future__ import annotations

import asyncio
from typing import cast

from adsmig.mount.nodes import Defaults, Nodes, Since
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from tests.unit.mount.test_reader import Zeros


def test_a_listing_is_kept_as_long_as_it_is_believed() -> None:
    async def keeping() -> None:
        tree = Tree(Nodes(Defaults(0, 0, 0)), cast(Store, Zeros()))
        root = tree.nodes.root
        tree.install(root, [(b"a", b"a", None)], Since(root))
        assert list(root.names_from(None)) == [b"a"]
        tree.sweep()
        assert root.is_listed
        root.doubt()
        tree.sweep()
        assert root.listed is None
        assert list(root.names_from(None)) == []

    asyncio.run(keeping())
