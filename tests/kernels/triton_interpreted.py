"""Run by test_attention_torch.py in a process of its own, since Triton reads TRITON_INTERPRET when a kernel is defined."""

import numpy as np
import torch
from dse_kernels import attention_triton as kernels
from dse_kernels.attention_reference import decode_paged_reference, decode_reference, decode_shared_reference

# Sums in another order; bfloat16 inputs are the same rounded numbers on both sides (the interpreter widens them to float32).
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-3}
cases = 0


def check(found: torch.Tensor, reference: object, dtype: torch.dtype) -> None:
    global cases  # noqa: PLW0603
    worst = float(np.abs(found.numpy() - np.asarray(reference)).max())
    assert worst <= TOLERANCE[dtype], (dtype, worst)
    cases += 1


for dtype in TOLERANCE:
    for owners, d, splits in (([0, 0, 0, 1, 1, 2], 32, 1), ([0] * 4, 40, 3), ([0, 1, 0, 1], 64, 2)):
        generator = torch.Generator().manual_seed(d)
        kv_heads, owner = max(owners) + 1, torch.tensor(owners)
        q = torch.randn(2, len(owners), d, generator=generator).to(dtype)
        k = torch.randn(2, 150, kv_heads, d, generator=generator).to(dtype)
        v = torch.randn(2, 150, kv_heads, d, generator=generator).to(dtype)
        lengths = torch.tensor([150, 67])
        plain = [x.float().numpy() for x in (q, k, v)]
        reference = decode_reference(*plain, owner.numpy(), lengths.numpy())
        tuning = kernels.Tuning(block=32, parts=splits)
        check(kernels.decode(q, k, v, owner, lengths, tuning=tuning), reference, dtype)
        check(kernels.decode(q, k, v, owner, lengths), reference, dtype)
        made = kernels.plan(owner, 2, 120, device="cpu", tuning=tuning)
        check(kernels.run(made, q, k, v, torch.tensor([1, 90])), decode_reference(*plain, owner.numpy(), np.array([1, 90])), dtype)
        # The same plan again, a length beyond its longest and one that is cut to nothing.
        cut = kernels.run(made, q, k, v, torch.tensor([150, -3]))
        check(cut[:1], decode_reference(*(x[:1] for x in plain), owner.numpy(), np.array([120])), dtype)
        check(cut[1:], np.zeros((1, len(owners), d), np.float32), dtype)
        pk, pv = k[0, :100], v[0, :100]
        own = torch.tensor([9, 0])
        reference = decode_shared_reference(plain[0], plain[1][0, :100], plain[2][0, :100], plain[1], plain[2], owner.numpy(), own.numpy())
        check(kernels.decode_shared(q, pk, pv, k, v, owner, own, tuning=tuning), reference, dtype)
    pages_k, pages_v = (x.reshape(2 * 5, 30, kv_heads, d) for x in (k, v))
    table = torch.tensor([[3, 1, 9, 0, 2], [5, 4, 8, -1, -1]])
    reference = decode_paged_reference(
        plain[0], pages_k.float().numpy(), pages_v.float().numpy(), table.numpy(), lengths.numpy(), owner.numpy()
    )
    check(kernels.decode_paged(q, pages_k, pages_v, table, lengths, owner, tuning=kernels.Tuning(parts=2)), reference, dtype)
    planned = kernels.plan(owner, 2, 150, device="cpu", tuning=kernels.Tuning(block=32, parts=2))
    check(kernels.run_paged(planned, q, pages_k, pages_v, table, lengths), reference, dtype)
    # A page that does not exist is cut to one that does: nothing beyond the cache is read.
    wild = torch.where(table < 0, 10**6, table)
    check(kernels.run_paged(planned, q, pages_k, pages_v, wild, lengths), reference, dtype)
for bad in (torch.tensor([151, 1]), torch.tensor([0, 1])):
    try:
        kernels.decode(q, k, v, owner, bad)
    except ValueError:
        continue
    raise SystemExit("a length out of range was not refused")
for wrong in (
    lambda: kernels.plan(torch.tensor([0, 2]), 2, 150, device="cpu"),
    lambda: kernels.plan(torch.tensor([0]), 0, 150, device="cpu"),
    lambda: kernels.run(planned, q[:1], k, v, lengths),
    lambda: kernels.run(planned, q, k[:, :, :1], v[:, :, :1], lengths),
    lambda: kernels.run(planned, q, k.transpose(1, 3), v.transpose(1, 3), lengths),
    lambda: kernels.run(planned, q.double(), k.double(), v.double(), lengths),
    lambda: kernels.run_paged(planned, q, pages_k, pages_v, table[:, :2], lengths),
    lambda: kernels.run_shared(planned, q, pk, pv, k, v, lengths),
):
    try:
        wrong()
    except ValueError:
        continue
    raise SystemExit("a wrong argument was not refused")
print(cases, "cases")
