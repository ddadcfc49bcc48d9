"""What samples of a profile are counted for."""

from __future__ import annotations

import pytest

from scripts import benchprofile as b

PYTHON, KERNEL = "/usr/bin/python3.11", "[kernel.kallsyms]"


@pytest.mark.parametrize(
    ("frames", "group"),
    [
        ([("_PyEval_EvalFrameDefault", PYTHON)], b.PROGRAM),
        ([("main.run", "/usr/bin/juicefs")], b.PROGRAM),
        ([("crypto/md5.block", "/usr/bin/juicefs")], b.HASHES),
        ([("[unknown]", "/x/xxhash/_xxhash.cpython-311-x86_64-linux-gnu.so")], b.HASHES),
        ([("sqlite3VdbeExec", "/usr/lib/libsqlite3.so.0.8.6")], b.SQLITE),
        (
            [("copy_from_iter", KERNEL), ("__x64_sys_pwrite64", KERNEL), ("pwrite", PYTHON)],
            "the kernel: files written",
        ),
        (
            [("filemap_read", KERNEL), ("do_preadv", KERNEL), ("do_syscall_64", KERNEL)],
            "the kernel: files read",
        ),
        (
            [("copy_from_iter", KERNEL), ("ksys_write", KERNEL), ("do_syscall_64", KERNEL)],
            "the kernel: files written",
        ),
        (
            [("copy_from_iter", KERNEL), ("tcp_sendmsg", KERNEL), ("__x64_sys_write", KERNEL)],
            b.NETWORK,
        ),
        (
            [("clear_page", KERNEL), ("asm_exc_page_fault", KERNEL), ("take", PYTHON)],
            b.MEMORY,
        ),
        (
            [("ext4_lookup", KERNEL), ("__arm64_sys_newfstatat", KERNEL)],
            "the kernel: looking at files",
        ),
        ([("ext4_write_end", "/lib/modules/6/ext4.ko"), ("entry", KERNEL)], b.KERNEL),
        ([("getpid", KERNEL), ("__x64_sys_getpid", KERNEL)], b.KERNEL),
    ],
)
def test_a_sample_is_counted_for(frames: list[tuple[str, str]], group: str) -> None:
    assert b.group_of(frames) == group


def test_what_perf_prints_is_added_up() -> None:
    printed = f"""adsmig    250125:
\t  5a0 _PyEval_EvalFrameDefault ({PYTHON})
\t  5b0 [unknown] ([unknown])

python worker    250125:
\tffffffff81a rep_movs ({KERNEL})
\tffffffff82a __x64_sys_pwrite64 ({KERNEL})
\t  7f0 pwrite ({PYTHON})

adsmig    500250:
\t  5c0 some (thing) else ({PYTHON})
"""
    seconds = b.seconds_by_group(printed.splitlines())
    assert seconds == pytest.approx(
        {b.PROGRAM: 0.000750375, "the kernel: files written": 0.000250125}
    )


def test_a_profile_shows_what_each_group_took_and_what_the_machine_did() -> None:
    ours = b.Profile({b.PROGRAM: 1.5, b.NETWORK: 0.25}, 2.0, others=1.0, idle=0.5, disk=0.75)
    theirs = b.Profile({b.PROGRAM: 1.0}, 2.5, others=2.0, idle=2.0, disk=0.0)
    first, second, *rows = b.profile_table("small-up", {"adsmig": ours, "juicefs": theirs})
    assert "small-up" in first
    assert second.split() == ["adsmig", "juicefs"]
    seconds = [tuple(map(float, row.split()[-2:])) for row in rows]
    assert seconds == [
        *((1.5, 1.0), (0.25, 0.0), (1.75, 1.0)),
        *((1.0, 2.0), (0.75, 0.0), (0.5, 2.0), (2.0, 2.5)),
    ]
