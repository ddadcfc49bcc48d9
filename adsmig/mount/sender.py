"""What was written, on its way to the store: whole files, or parts while they come."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from dataclasses import replace

from adsmig.model import Entry, Meta, Part, Upload
from adsmig.mount.background import Begin
from adsmig.mount.draft import Draft
from adsmig.mount.nodes import Node
from adsmig.mount.store import PART, SINGLE, Store

log = logging.getLogger(__name__)

LOCAL = 256 << 20
"""Bytes of a file that stay here while it is written from its beginning to its end."""
_AT_ONCE = 4
"""Parts of one file under way at once."""
_REFUSED = frozenset((errno.EACCES, errno.EDQUOT, errno.ENOSPC))
"""What says that the store has not taken it, nor ever will without somebody doing something."""


class Sender:
    """Brings drafts to the store.  Belongs to the event loop; who calls has the file's lock, but
    for :meth:`ship`, which only begins.
    """

    def __init__(self, store: Store, begin: Begin) -> None:
        self._store, self._begin = store, begin
        self._sending: dict[Draft, dict[int, asyncio.Task[None]]] = {}
        """By draft: its parts on their way; 0 for an upload that is being opened."""

    def forget(self, draft: Draft) -> None:
        """Nobody wants it stored any more."""
        for task in self._sending.pop(draft, {}).values():
            task.cancel()
        if draft.upload:
            self._give_up(draft.upload, draft)

    async def store(
        self, node: Node, draft: Draft, meta: Meta, natural: bool
    ) -> tuple[Entry, Meta]:
        """Has the store have all of it; the object, and the metadata that it has.  Where nobody
        chose its time (``natural``), that of the first bytes will do.  Raises OSError.
        """
        await self._sent(draft)
        if draft.upload and not draft.size:
            self._give_up(draft.upload, draft)  # there is no object of no parts
        if draft.upload or draft.size > SINGLE:
            entry = await self.finish(node, draft)
            return await self._restated(draft, entry, meta, natural)
        write, before = self._store.write, draft.offered
        draft.offered = True
        try:
            return await self._store.run(write, node.key, draft.fd, draft.size, meta), meta
        except OSError as exc:
            if exc.errno in _REFUSED:
                draft.offered = before
            raise

    def settled(self, draft: Draft) -> None:
        """It is stored."""
        self._sending.pop(draft, None)

    def ship(self, node: Node, draft: Draft) -> bool:
        """Sends the parts that are full; whether the writer should wait until some are stored."""
        if draft.filled < SINGLE + PART or node.gone:
            return False
        self._part_with(node, draft)
        sending = self._sending.setdefault(draft, {})
        if not draft.upload:
            if 0 not in sending:
                sending[0] = self._begin(self._begin_shipping(node, draft), "opening an upload")
            return False
        size = draft.upload.part_size
        ready = draft.filled // size - 1  # what was written last may be written to again
        unsent = [n for n in range(draft.sent // size + 1, ready + 1) if n not in draft.parts]
        for number in unsent:
            if len(sending) >= _AT_ONCE:
                break
            if number not in sending:
                work = self._send(node, draft, number)
                sending[number] = self._begin(work, f"storing a part of {node.key!r}")
        return len(unsent) > 2 * _AT_ONCE and bool(sending)

    async def _begin_shipping(self, node: Node, draft: Draft) -> None:
        await self._open_upload(node, draft)
        self.ship(node, draft)  # who has written all by now, would not ask again

    async def _open_upload(self, node: Node, draft: Draft, part_size: int = PART) -> None:
        try:
            meta = replace(node.meta, mtime_ns=time.time_ns())
            begin = self._store.run(self._store.begin, node.key, meta, part_size)
            upload = await self._wanted(asyncio.ensure_future(begin))
            draft.upload, draft.begun = upload, meta
            draft.note(node.key, node.meta)
        finally:
            self._sending.get(draft, {}).pop(0, None)

    async def _wanted(self, opening: asyncio.Future[Upload]) -> Upload:
        """What is being opened; it is given up when it is there, if nobody wants it by then."""

        async def give_up() -> None:
            await self._store.run(self._store.abort, await opening)

        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._begin(give_up(), "giving up an upload")
            raise

    async def _send(self, node: Node, draft: Draft, number: int) -> None:
        upload = draft.upload
        try:
            if not upload:
                return  # it was given up meanwhile
            draft.spoiled.discard(number)
            part = await self._part(node, draft, upload, number)
            if part and number not in draft.spoiled and draft.upload is upload:
                draft.parts[number] = part
                draft.note(node.key, node.meta)
                if draft.size - draft.sent > LOCAL and upload.entry.key == node.key:
                    await draft.drop_sent(LOCAL // 2)
        finally:
            self._sending.get(draft, {}).pop(number, None)
        self.ship(node, draft)

    async def _part(self, node: Node, draft: Draft, upload: Upload, number: int) -> Part | None:
        """Stores a part; None if it is not wanted any more."""
        try:
            return await self._store.run(
                self._store.put_part, upload, number, draft.fd, upload.part_size
            )
        except FileNotFoundError:
            if draft.upload is upload:
                self._begin_anew(node, draft)
        except OSError:
            if number not in draft.spoiled:
                raise
        return None

    def _begin_anew(self, node: Node, draft: Draft) -> None:
        """The store has given its upload up, as its rules may say: all is to be sent again.  EIO if
        it is not all here.
        """
        if draft.sent:
            log.error(
                "the store has given up an upload of %r, and with it the first %d bytes, which are"
                " not here any more", node.key, draft.sent,
            )  # fmt: skip
            raise OSError(errno.EIO, "its beginning is lost: the store has given its upload up")
        log.warning("the store has given up an upload of %r: sending it again", node.key)
        draft.upload, draft.parts = None, {}
        draft.note(node.key, node.meta)

    def _part_with(self, node: Node, draft: Draft) -> None:
        """Gives an upload up that is for a name which the file had: it would become an object under
        that, in place of who has the name by now.  No bytes are lost: all are here.
        """
        upload = draft.upload
        if upload and upload.entry.key != node.key and not draft.sent:
            self._give_up(upload, draft)

    def _give_up(self, upload: Upload, draft: Draft) -> None:
        self._begin(self._store.run(self._store.abort, upload), "giving up an upload")
        draft.upload, draft.parts = None, {}

    async def wait_for_room(self, draft: Draft) -> None:
        """Returns when one more part is stored, or could not be."""
        sending = list(self._sending.get(draft, {}).values())
        if sending:
            await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)

    async def _sent(self, draft: Draft) -> None:
        while sending := list(self._sending.get(draft, {}).values()):
            await asyncio.wait(sending)

    async def send_off(self, node: Node, draft: Draft, upto: int) -> bool:
        """Has all whole parts of the first ``upto`` bytes stored, and gives back the room of these;
        whether that helped.
        """
        await self._sent(draft)  # an upload may be being opened
        before, upto = draft.sent, min(upto, draft.filled)
        self._part_with(node, draft)
        if not draft.upload:
            least = self._store.storage.profile.min_part
            if upto < least:
                return False
            await self._open_upload(node, draft, least)
        assert draft.upload
        await self._sent(draft)
        size = draft.upload.part_size
        for number in range(draft.sent // size + 1, upto // size + 1):
            if number not in draft.parts and draft.upload:
                await self._send(node, draft, number)
        await draft.drop_sent(draft.filled - upto)
        return draft.sent > before

    async def finish(self, node: Node, draft: Draft) -> Entry:
        """Stores what is still here of a file that goes in parts, and makes it an object."""
        await self._sent(draft)
        key = node.key
        self._part_with(node, draft)
        try:
            entry = await self._ended(node, draft)
        except FileNotFoundError:
            if not draft.upload:
                raise
            entry = await self._there(draft) or await self._ended_anew(node, draft)
        if entry.key != key:  # it has another name since
            moved = await self._store.run(self._store.copy, entry, key, None)
            await self._store.run(self._store.delete, [entry.key])
            entry = moved
        return entry

    async def _there(self, draft: Draft) -> Entry | None:
        """The object, if an earlier try has ended the upload, and its answer was lost."""
        completed, upload = self._store.completed, draft.upload
        return await self._store.run(completed, upload, draft.parts, draft.fd, draft.size)

    async def _ended_anew(self, node: Node, draft: Draft) -> Entry:
        self._begin_anew(node, draft)
        return await self._ended(node, draft)

    async def _ended(self, node: Node, draft: Draft) -> Entry:
        """Stores the parts that are missing, and ends the upload."""
        key = node.key
        if not draft.upload:
            meta = replace(node.meta, mtime_ns=node.meta.mtime_ns or time.time_ns())
            part_size = max(PART, -(-draft.size // 9000))
            draft.upload = await self._store.run(self._store.begin, key, meta, part_size)
            draft.begun = meta
        upload, limit = draft.upload, asyncio.Semaphore(_AT_ONCE)
        count = -(-draft.size // upload.part_size)

        async def one(number: int) -> None:
            size = min(upload.part_size, draft.size - (number - 1) * upload.part_size)
            async with limit:
                draft.parts[number] = await self._store.run(
                    self._store.put_part, upload, number, draft.fd, size
                )

        # What was stored as a whole part may be longer than the file is by now.
        if draft.size % upload.part_size:
            draft.parts.pop(count, None)
        missing = [n for n in range(1, count + 1) if n not in draft.parts]
        done = await asyncio.gather(*map(one, missing), return_exceptions=True)
        for error in done:
            if error:
                raise error
        parts = [draft.parts[n] for n in range(1, count + 1)]
        draft.offered = True
        return await self._store.run(self._store.complete, upload, parts, draft.size, draft.begun)

    async def _restated(
        self, draft: Draft, entry: Entry, meta: Meta, natural: bool
    ) -> tuple[Entry, Meta]:
        """The object with its metadata: what its upload was opened with, if that is as good.  Where
        nobody chose a time (``natural``), that of the first bytes is as good as that of the last.
        """
        begun = draft.begun
        if meta == begun or (natural and replace(meta, mtime_ns=begun.mtime_ns) == begun):
            return entry, begun
        return await self._store.run(self._store.copy, entry, entry.key, meta), meta
