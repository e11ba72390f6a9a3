"""Every method of sequence-parallel attention: exact, forward and backward, and its messages counted to the byte."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mixbench.models import strategies
from mixbench.models.errors import BadInput
from mixbench.models.strategies.buffers import early
from mixbench.models.strategies.execute import Message
from mixbench.models.strategies.layout import LAYOUTS, even_lengths
from mixbench.models.strategies.plan import Attend, Merge, Plan, Recv, Send, Sizes
from mixbench.models.strategies.play import Game, Table, play

METHODS = strategies.names()
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "usp": [{}, {"across": "tokenring", "chunks": 2}, {"group": 1}],
    "tokenring": [{}, {"chunks": 1}, {"ahead": 0, "chunks": 4}, {"ahead": 1}],
}
SIZE = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Blocks this small take a thousand times longer on several threads of a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(length: int, heads: int = 4, kv_heads: int = 4, dtype: torch.dtype = torch.float64, batch: int = 2) -> list[Tensor]:
    """q, k, v and the gradient of the output."""
    generator = torch.Generator().manual_seed(length)

    def tensor(count: int) -> Tensor:
        return torch.randn(batch, count, length, SIZE, generator=generator, dtype=torch.float64).to(dtype)

    return [tensor(heads), tensor(kv_heads), tensor(kv_heads), tensor(heads)]


def truth(q: Tensor, k: Tensor, v: Tensor, do: Tensor, causal: bool) -> list[Tensor]:
    """torch's own output and gradients, in float64."""
    q, k, v = (t.double().detach().requires_grad_() for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), do.double())]


def ours(q: Tensor, k: Tensor, v: Tensor, do: Tensor, plan: Plan) -> list[Tensor]:
    q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
    out = play(q, k, v, plan)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), do)]


def assert_exact(plan: Plan, tensors: Sequence[Tensor]) -> None:
    q, k, v, do = tensors
    found, expected = ours(q, k, v, do, plan), truth(q, k, v, do, plan.causal)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1:], expected[1:], rtol=0, atol=1e-10)


def plans(method: str, lengths: Sequence[int], heads: int = 4, kv_heads: int = 4) -> Iterator[Plan]:
    """The plans of a method in all its layouts, masks and forms that these heads allow."""
    choices = product(strategies.describe(method).layouts, (False, True), OPTIONS.get(method, [{}]))
    for layout, causal, options in choices:
        try:
            yield strategies.make_plan(method, lengths, heads, kv_heads, causal, layout, **options)
        except BadInput:
            # Refusals have their own test; the others have no reason for one.
            assert method == "ulysses"


# Exactness.


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_equals_ordinary_attention_and_its_gradients(method: str, degree: int) -> None:
    heads = 4 if degree not in (3, 5) else degree
    for index, plan in enumerate(plans(method, even_lengths(17, degree), heads, heads)):
        assert_exact(plan, draw(17, heads, heads, batch=1 + index % 2))


@pytest.mark.parametrize("kv_heads", [2, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_exact_with_grouped_heads(method: str, kv_heads: int) -> None:
    for degree in (2, 3, 4):
        for plan in plans(method, even_lengths(14, degree), 4, kv_heads):
            assert_exact(plan, draw(14, 4, kv_heads))


@given(
    method=st.sampled_from(METHODS),
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(lambda lengths: sum(lengths) > 0),
    layout=st.sampled_from(["contiguous", "zigzag"]),
    causal=st.booleans(),
    kv_heads=st.sampled_from([1, 2, 4]),
    choice=st.integers(0, 2),
)
def test_any_lengths_do_empty_ranks_too(
    method: str, lengths: list[int], layout: str, causal: bool, kv_heads: int, choice: int
) -> None:
    options = OPTIONS.get(method, [{}])
    try:
        plan = strategies.make_plan(method, lengths, 4, kv_heads, causal, layout, **options[choice % len(options)])
    except BadInput:
        return
    assert_exact(plan, draw(sum(lengths), 4, kv_heads))


@pytest.mark.parametrize("method", METHODS)
def test_fewer_tokens_than_ranks_are_fine(method: str) -> None:
    for plan in plans(method, even_lengths(3, 4)):
        assert_exact(plan, draw(3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("method", METHODS)
def test_shorter_dtypes_stay_within_their_rounding(method: str, dtype: torch.dtype, tolerance: float) -> None:
    q, k, v, do = draw(24, dtype=dtype)
    plan = strategies.make_plan(method, even_lengths(24, 4), 4, causal=True)
    found, expected = ours(q, k, v, do, plan), truth(q, k, v, do, causal=True)
    assert all(tensor.dtype == dtype for tensor in found)
    for ours_, exact in zip(found, expected, strict=True):
        error = (ours_.double() - exact).abs().max() / exact.abs().max()
        assert error < tolerance
    # And no worse than torch's own kernel in that dtype, to within a small factor.
    native = [t.detach().requires_grad_() for t in (q, k, v)]
    out = F.scaled_dot_product_attention(native[0], native[1], native[2], is_causal=True)
    for ours_, theirs, exact in zip(found, [out, *torch.autograd.grad(out, native, do)], expected, strict=True):
        assert (ours_.double() - exact).norm() < 3 * (theirs.double() - exact).norm() + 1e-12


def test_large_logits_do_not_overflow_the_merge() -> None:
    q, k, v, do = draw(12)
    plan = strategies.make_plan("tokenring", (4, 4, 4), 4)
    assert_exact(plan, (q * 40, k * 40, v, do))


# Messages.


def traffic(plan: Plan, sizes: Sizes, dtype: torch.dtype = torch.bfloat16, runs: int = 1) -> Game:
    game = Game(plan, sizes, dtype)
    total = sum(sum(map(len, share)) for share in plan.shares)
    shape = (sizes.batch, sizes.heads, total, sizes.head_dim)
    q, do = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    k, v = (torch.randn(sizes.batch, sizes.kv_heads, total, sizes.head_dim).to(dtype) for _ in "kv")
    for _ in range(runs):
        _, states = game.forward(q, k, v)
        game.backward(do, states)
    return game


@pytest.mark.parametrize("method", METHODS)
def test_the_account_is_what_a_run_sends(method: str) -> None:
    for dtype, kv_heads, lengths in product((torch.bfloat16, torch.float64), (4, 2), ((5, 4), (4, 3, 3, 3))):
        sizes = Sizes(2, 4, kv_heads, 8, dtype.itemsize)
        for plan in plans(method, lengths, 4, kv_heads) if lengths != (5, 4) or kv_heads == 4 else ():
            game = traffic(plan, sizes, dtype)
            for backward in (False, True):
                planned, sent = plan.account(sizes, backward), game.account(backward)
                assert (planned.links, planned.kinds, planned.messages) == (sent.links, sent.kinds, sent.messages)
                assert sum(planned.egress) == sum(planned.ingress) == planned.total


B, H, G, D, N, LOCAL = 2, 8, 2, 16, 4, 24
UNIT = B * LOCAL * D * 2  # bytes of one head of a rank's tokens, in 16 bits
ROWS = B * LOCAL * H * 4  # bytes of one float32 per query and head


def per_rank(method: str, backward: bool = False, kv_heads: int = G, **settings: Any) -> tuple[int, ...]:
    account = strategies.account(method, (LOCAL,) * N, H, kv_heads, D, 2, B, backward=backward, **settings)
    assert len(set(account.egress)) == 1 or settings.get("causal")
    return account.egress


def test_bytes_follow_the_closed_formulas() -> None:
    kv, q = 2 * G * UNIT, H * UNIT
    for method in ("ring", "ring_bidirectional", "allgather_kv"):
        assert per_rank(method)[0] == (N - 1) * kv
        assert per_rank(method, backward=True)[0] == (N - 1) * 3 * kv  # k, v in 16 bits, their gradients in 32
    for method in ("tokenring", "tokenring_paper"):
        assert per_rank(method)[0] == (N - 1) * (2 * q + ROWS)
        assert per_rank(method, backward=True)[0] == (N - 1) * (4 * q + 2 * ROWS)  # q, do; dq in 32 bits; lse, delta
    assert per_rank("ulysses", kv_heads=4)[0] * N == (N - 1) * (2 * H + 2 * 4) * UNIT
    assert per_rank("ulysses", True, kv_heads=4)[0] * N == (N - 1) * (2 * H + 2 * 4) * UNIT
    # Two heads of keys and values for four ranks: each goes to two of them, whole, and its gradients come back in 32 bits.
    assert per_rank("ulysses")[0] == (N - 1) * (2 * H // N + 2) * UNIT
    assert per_rank("ulysses", True)[0] == (N - 1) * (2 * H // N + 4) * UNIT
    # Groups of two: half of the heads to the one other member; then a ring of two with twice the tokens and half the heads.
    assert per_rank("usp", group=2)[0] == (2 * H + 2 * G) // 2 * UNIT + 2 * (G // 2) * 2 * UNIT
    # Nodes of two: keys and values cross once; queries and results go to the one other member, once for each node.
    nodes = strategies.account("tokenring_nodes", (LOCAL,) * N, H, G, D, 2, B, local=2)
    assert nodes.links[0, 2] == kv
    assert nodes.links[0, 1] == 2 * (2 * q + ROWS)


def test_tokenring_loads_each_direction_with_half_of_what_a_ring_loads_one_with() -> None:
    ring = strategies.account("ring", (LOCAL,) * N, H, H, D, 2, B)
    token = strategies.account("tokenring", (LOCAL,) * N, H, H, D, 2, B)
    both = strategies.account("ring_bidirectional", (LOCAL,) * N, H, H, D, 2, B)
    assert ring.links == {(r, (r + 1) % N): 6 * H * UNIT for r in range(N)}
    assert token.kinds["q"] * 2 == ring.total
    # Queries go straight to their holder and results straight home: one of each over each of a rank's three links.
    assert set(token.links.values()) == {2 * H * UNIT + ROWS}
    assert both.links[0, 1] == both.links[0, 3] == ring.links[0, 1] // 2


def test_grouped_heads_turn_the_comparison_round() -> None:
    ring, token = (per_rank(method, kv_heads=1)[0] for method in ("ring", "tokenring"))
    assert token > 8 * ring


@pytest.mark.parametrize("method", ["ring", "tokenring", "tokenring_paper"])
def test_a_causal_zigzag_sends_three_quarters(method: str) -> None:
    full, trimmed = (sum(per_rank(method, layout="zigzag", causal=causal)) for causal in (False, True))
    assert trimmed * 4 == full * 3
    full, trimmed = (sum(per_rank(method, True, layout="zigzag", causal=causal)) for causal in (False, True))
    assert trimmed * 4 == full * 3


def test_a_causal_contiguous_sequence_sends_half() -> None:
    for method in ("ring", "tokenring", "allgather_kv"):
        full, trimmed = (sum(per_rank(method, causal=causal)) for causal in (False, True))
        assert trimmed * 2 == full


def test_zigzag_and_stripes_balance_the_work() -> None:
    def spread(layout: str) -> float:
        pairs = strategies.make_plan("ring", (LOCAL,) * N, 1, causal=True, layout=layout).pairs()
        assert sum(pairs) == N * LOCAL * (N * LOCAL + 1) // 2
        return max(pairs) * N / sum(pairs)

    assert spread("zigzag") == 1
    assert spread("striped") < 1.05
    assert 1.7 < spread("contiguous") < 1.75  # (2 N - 1) / N


@pytest.mark.parametrize("method", METHODS)
def test_every_message_has_one_receive_and_a_tag_of_its_own(method: str) -> None:
    for degree, plan in ((n, plan) for n in (2, 3, 4) for plan in plans(method, even_lengths(13, n))):
        for programs in (plan.forward, plan.backward):
            sends = [
                (rank, op.target, op.channel, op.piece)
                for rank in range(degree)
                for op in programs[rank]
                if isinstance(op, Send)
            ]
            recvs = [
                (op.source, rank, op.channel, op.piece)
                for rank in range(degree)
                for op in programs[rank]
                if isinstance(op, Recv)
            ]
            assert sorted(map(str, sends)) == sorted(map(str, recvs))
            assert len(set(sends)) == len(sends)
            assert all(source != target for source, target, *_ in sends)
            assert all(piece.bytes(Sizes(1, 1, 1, 1)) for *_, piece in sends)
        numbers = [(source, target, tag) for (_, source, target, _), tag in plan.tags.items()]
        assert len(set(numbers)) == len(numbers)


def test_one_rank_makes_no_message() -> None:
    for method in METHODS:
        assert strategies.account(method, (7,), 4).messages == {}
        assert strategies.account(method, (7,), 4, backward=True).messages == {}


class Batch:
    """Messages that a backend carries out as one."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages, self.complete = messages, False


class OrderedSeat:
    """A transport as NCCL is: no tags, what a program posts in a row is one batch, a channel's batches go one after another.

    A batch is complete when all of its messages have met their other halves, and those only meet at the heads of the queues.
    """

    tagged = False

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank = table, rank
        self.row: list[Message] = []
        self.queues: dict[int, list[Batch]] = {}
        self.seats: list[OrderedSeat] = table.__dict__.setdefault("seats", [])
        self.seats.append(self)

    def post(self, message: Message) -> None:
        self.row.append(message)
        self.table.events += 1

    def flush(self) -> None:
        for channel in sorted({message.op.channel for message in self.row}):
            batch = Batch([message for message in self.row if message.op.channel == channel])
            for message in batch.messages:
                message.work = batch
            self.queues.setdefault(channel, []).append(batch)
        self.row = []

    def done(self, message: Message) -> bool:
        if message.work is None:
            self.flush()
        while self.meet():
            self.table.events += 1
        return message.work.complete

    def meet(self) -> bool:
        halves: dict[tuple[int, int, int], tuple[list[Message], list[Message]]] = {}
        heads = [(seat, channel, queue) for seat in self.seats for channel, queue in seat.queues.items() if queue]
        for seat, channel, queue in heads:
            for message in queue[0].messages:
                op = message.op
                pair = (op.source, seat.rank) if isinstance(op, Recv) else (seat.rank, op.target)
                halves.setdefault((*pair, channel), ([], []))[isinstance(op, Recv)].append(message)
        met = [(a, b) for sends, recvs in halves.values() for a, b in zip(sends, recvs, strict=False)]
        for sent, received in met:
            assert sent.op.piece == received.op.piece, "the order differs at the two ends"
            received.buffer.copy_(sent.buffer)
        gone = {id(message) for pair in met for message in pair}
        for _, _, queue in heads:
            queue[0].messages = [message for message in queue[0].messages if id(message) not in gone]
            if not queue[0].messages:
                queue.pop(0).complete = True
        return bool(met)


@pytest.mark.parametrize("method", METHODS)
def test_a_backend_without_tags_and_with_batches_in_order_is_never_stuck(method: str) -> None:
    for degree, length in product((2, 3, 4, 5), (25, 3)):
        heads = 4 if degree == 2 else degree
        for plan in plans(method, even_lengths(length, degree), heads, heads):
            game = Game(plan, Sizes(1, heads, heads, SIZE, 8), torch.float64, seat=OrderedSeat)
            q, k, v, do = draw(length, heads, heads, batch=1)
            out, states = game.forward(q, k, v)
            torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, is_causal=plan.causal))
            game.backward(do, states)


def test_programs_that_wait_for_one_another_are_told() -> None:
    good = strategies.make_plan("ring", (2, 2), 1)
    # Every rank wants to have before it gives.
    last = tuple(tuple(sorted(program, key=lambda op: isinstance(op, Send))) for program in good.forward)
    wrong = replace(good, forward=last)
    with pytest.raises(RuntimeError, match="ranks 0, 1 wait"):
        q, k, v, _ = draw(4, 1, 1)
        play(q, k, v, wrong)


# Memory.


@pytest.mark.parametrize("method", METHODS)
def test_a_steady_loop_uses_the_same_memory_for_its_messages(method: str) -> None:
    plan = strategies.make_plan(method, (4, 4, 4, 4), 4, causal=True)
    q, k, v, do = draw(16)
    game = Game(plan, Sizes(2, 4, 4, SIZE, 8), torch.float64)

    def run() -> list[int]:
        out, states = game.forward(q, k, v)
        gradients = game.backward(do, states)
        torch.testing.assert_close([out, *gradients], truth(q, k, v, do, True), rtol=0, atol=1e-10)
        return [buffer.data_ptr() for side in game.executors for executor in side for buffer in executor.buffers]

    assert run() == run() == run()


def test_buffers_do_not_grow_with_the_number_of_ranks() -> None:
    def units(method: str, degree: int, backward: bool) -> float:
        sizes = Sizes(1, 1, 1, 8, 2)
        game = Game(strategies.make_plan(method, (16,) * degree, 1), sizes, torch.bfloat16)
        return max(sum(buffer.numel() for buffer in e.buffers) for e in game.executors[backward]) / (16 * 8 * 2)

    for method, backward in product(("ring", "tokenring", "tokenring_paper"), (False, True)):
        assert units(method, 12, backward) == units(method, 8, backward)
    assert units("allgather_kv", 12, False) > units("allgather_kv", 8, False)
    assert units("ring", 8, False) == 2 * 2  # the k and v that are read and sent on, and those that arrive


# Schedules.


def test_the_authors_results_leave_a_step_late_and_ours_at_once() -> None:
    def delays(method: str) -> set[int]:
        program = strategies.make_plan(method, (8,) * 5, 1).forward[0]
        computed = {op.q.tokens: op.step for op in program if isinstance(op, Attend)}
        return {op.step - computed[op.piece.tokens] for op in program if isinstance(op, Send) and op.piece.kind == "o"}

    assert delays("tokenring_paper") == {1}
    assert delays("tokenring") == {0}


def test_results_return_to_their_owner() -> None:
    plan = strategies.make_plan("tokenring", (8,) * 5, 1)
    for rank, program in enumerate(plan.forward):
        for op in program:
            if isinstance(op, Send) and op.piece.kind == "o":
                assert op.piece.tokens[0][0] in plan.shares[op.target][0]
            if isinstance(op, Merge):
                assert op.piece.tokens[0][0] in plan.shares[rank][0]


def test_direct_queries_load_no_link_twice() -> None:
    ring, direct = (strategies.account("tokenring", (8,) * 5, 1, ahead=ahead) for ahead in (0, 3))
    assert max(direct.links.values()) < max(ring.links.values()) / 2
    assert set(direct.links) == {(a, b) for a in range(5) for b in range(5) if a != b}


def test_modes_leave_out_messages_or_computation() -> None:
    plan = strategies.make_plan("tokenring", (4, 4, 4), 4)
    q, k, v, _ = draw(12)
    game = Game(plan, Sizes(2, 4, 4, SIZE, 8), torch.float64)
    _, states = game.forward(q, k, v)
    whole = game.account().total
    game.run([state.copy() for state in states], mode="compute")
    assert game.account().total == whole
    lines: list[list[Any]] = [[], [], []]
    game.run([state.copy() for state in states], mode="messages", timelines=lines)
    assert game.account().total == 2 * whole
    assert [tuple(op for op, _, _ in line) for line in lines] == list(map(early, plan.forward))
    assert all(start <= end for line in lines for _, start, end in line)


def test_receives_are_posted_before_anything_leaves_for_the_same_rank() -> None:
    """Over gloo the word that a receive is there stands in line behind earlier messages to the same rank."""
    for method in ("tokenring", "ring_bidirectional", "ulysses"):
        for program in strategies.make_plan(method, (8,) * 4, 4).forward:
            posted = early(program)
            assert {op.piece for op in posted if isinstance(op, Recv)} == {op.piece for op in program if isinstance(op, Recv)}
            assert [op for op in posted if not isinstance(op, Recv)] == [op for op in program if not isinstance(op, Recv)]
            for index, op in enumerate(posted):
                if isinstance(op, Recv):
                    before = [other for other in posted[:index] if isinstance(other, Send) and other.target == op.source]
                    # The direct schedule's opposite messages are all asked for before any leaves; the others' of one step.
                    assert not [other for other in before if method == "tokenring" or other.step == op.step]


# Names, errors, lightness.


def test_names_are_files_and_descriptions_are_complete() -> None:
    assert {"ring", "tokenring", "tokenring_paper", "ulysses", "usp", "allgather_kv"} <= set(METHODS)
    for method in METHODS:
        strategy = strategies.describe(method)
        assert strategy.title and strategy.summary and strategy.source
        assert set(strategy.layouts) <= set(LAYOUTS)
    assert strategies.describe("tokenring-paper") == strategies.describe("tokenring_paper")


@pytest.mark.parametrize(
    ("call", "what", "hint"),
    [
        (("rings", (4, 4), 4), "no method named 'rings'", "did you mean ring"),
        (("ulysses", (4, 4, 4), 4), "4 query heads and 4 key and value heads don't divide among 3 ranks", "ring and tokenring"),
        (("usp", (4, 4), 4, 4, False, "striped"), "usp can't work on the layout striped", "contiguous, zigzag"),
        (("ring", (4, 4), 4, 3), "4 query heads can't share 3", "divide"),
        (("ring", (4, 4), 4, 4, False, "spiral"), "no layout named 'spiral'", "zigzag"),
        (
            ("ring", (5, 3), 4, 4, False, "striped"),
            r"8 tokens in stripes over 2 ranks can't have the lengths \(5, 3\)",
            r"\(4, 4\)",
        ),
        (("ring", (), 4), "no ranks", "each rank"),
        (("ring", (4, -1), 4), "no ranks can have", "each rank"),
    ],
)
def test_impossible_plans_are_refused_with_a_next_step(call: tuple[Any, ...], what: str, hint: str) -> None:
    with pytest.raises(BadInput, match=what) as caught:
        strategies.make_plan(*call)
    assert re.search(hint, caught.value.hint)


@pytest.mark.parametrize(
    ("method", "options", "what"),
    [
        ("ring", {"chunks": 2}, "ring has no option named 'chunks'"),
        ("usp", {"group": 3}, "4 ranks don't divide into groups of 3"),
        ("usp", {"across": "tree"}, "no ring named 'tree'"),
        ("tokenring_nodes", {"local": 3}, "4 ranks don't divide into nodes of 3"),
        ("tokenring", {"ahead": -1}, "-1 steps ahead"),
    ],
)
def test_wrong_options_are_refused(method: str, options: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        strategies.make_plan(method, (4,) * 4, 4, **options)


def test_names_plans_and_accounts_need_no_torch() -> None:
    program = """
import sys
from mixbench.models import strategies
for name in strategies.names():
    strategies.describe(name)
    strategies.account(name, (4, 4), 4, causal=True)
assert not [name for name in ("torch", "numpy") if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
