"""The threads that the attention kernels keep: the same bits with any number, from several callers, after a fork and on one core."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from dse_kernels import _kernels, attention

OWNERS = [0, 0, 0, 1, 2, 2]
RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 6, 32), (3, 1100, 3, 32), (3, 1100, 3, 32)))
LENGTHS = [1100, 700, 1]

IN_A_PROCESS_OF_ITS_OWN = """
import os, signal
import numpy as np
from dse_kernels import _kernels, attention
signal.alarm(60)
rng = np.random.default_rng(0)
q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 4, 32), (2, 1100, 2, 32), (2, 1100, 2, 32)))
call = lambda threads: attention.decode(q, k, v, [0, 0, 1, 1], [1100, 600], threads=threads)
assert _kernels.pool_threads() == 0
one = call(1)
assert _kernels.pool_threads() == 0
assert all(np.array_equal(one, call(threads)) for threads in (2, 4, 3))
assert _kernels.pool_threads() == 3
{then}
"""
FORK = """
child = os.fork()
if child == 0:
    good = _kernels.pool_threads() == 0 and np.array_equal(one, call(4)) and _kernels.pool_threads() == 3
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if np.array_equal(one, call(2)) else 1)
    os._exit(0 if good and os.waitpid(grandchild, 0)[1] == 0 else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(one, call(4))
"""
ONE_CORE = """
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
assert all(np.array_equal(one, call(threads)) for threads in [2, 4] * 50)
"""


def call(threads: int) -> np.ndarray:
    return np.asarray(attention.decode(Q, K, V, OWNERS, LENGTHS, threads=threads))


def test_callers_at_once_get_the_same_bits() -> None:
    one = call(1)
    wrong: list[int] = []

    def again(threads: int) -> None:
        wrong.extend(threads for _ in range(100) if not np.array_equal(one, call(threads)))

    callers = [threading.Thread(target=again, args=(threads,)) for threads in (2, 3, 4, 2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive()
    assert not wrong
    assert _kernels.pool_threads() >= 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and sets its cores")
@pytest.mark.parametrize("then", [FORK, ONE_CORE], ids=["fork", "one core"])
def test_after_a_fork_and_on_one_core_and_the_process_ends(then: str) -> None:
    program = IN_A_PROCESS_OF_ITS_OWN.format(then=then)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
