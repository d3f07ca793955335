"""How much the processes of PyTorch say to each other, counted in one."""

from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kerassl import distributed
from kerassl.distributed import buckets, processes
from tests.contracts.methods import METHODS, tiny_encoder
from tests.distributed import worker

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="has collectives of its own"
)


class World:
    """Several processes that all hold what this one holds.

    Its collectives return at once. `counts` has their number by name and by
    whether they are in the group of the gradients, `bytes` what they carry, and
    `sizes` their number by the numbers that each carries, too.
    """

    def __init__(self, monkeypatch, size, can_scatter=True):
        from torch import distributed as library

        self.size = size
        self.counts: Counter = Counter()
        self.bytes: Counter = Counter()
        self.sizes: Counter = Counter()
        self.can_scatter = can_scatter
        monkeypatch.setattr(library, "get_world_size", lambda: size)
        monkeypatch.setattr(library, "new_group", lambda: "own")
        for name in ("all_reduce", "all_gather", "reduce_scatter", "broadcast"):
            monkeypatch.setattr(library, name, getattr(self, name))

    def _note(self, name, tensor, group):
        self.counts[name, group] += 1
        self.bytes[name, group] += tensor.numel() * tensor.element_size()
        self.sizes[name, group, tensor.numel()] += 1

    def all_reduce(self, tensor, group=None, async_op=False):
        self._note("all_reduce", tensor, group)
        tensor *= self.size
        return SimpleNamespace(wait=lambda: None) if async_op else None

    def broadcast(self, tensor, src):
        assert src == 0
        self._note("broadcast", tensor, None)
        tensor.zero_()

    def all_gather(self, parts, own):
        self._note("all_gather", own, None)
        for part in parts:
            part.copy_(own)

    def reduce_scatter(self, own, parts):
        if not self.can_scatter:
            raise RuntimeError("gloo does not support reduce_scatter")
        self._note("reduce_scatter", own, None)
        own.copy_(parts[0] * self.size)


@pytest.fixture
def world(monkeypatch):
    """Returns a function that makes a `World` of this process."""
    from torch import distributed as library

    store = library.HashStore()
    library.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield lambda *args: World(monkeypatch, *args)
    monkeypatch.undo()
    library.destroy_process_group()


def trained(optimizer, count=2):
    """Returns a model after some steps on one batch."""
    keras.utils.set_random_seed(1)
    model = METHODS["rotation"](worker.tiny_encoder())
    model.compile(optimizer)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), "uint8")
    for _ in range(count):
        model.train_on_batch(images)
    return model


def assert_same(one, other):
    for ours, theirs in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_travel_in_buckets(world, monkeypatch):
    alone = trained(keras.optimizers.SGD(0.1, momentum=0.9))
    around = world(8)
    model = trained(keras.optimizers.SGD(0.1, momentum=0.9))
    assert_same(alone, model)
    sizes = [v.value.numel() * 4 for v in model.trainable_variables]
    assert len(sizes) == 7 and max(sizes) < buckets.BUCKET_BYTES
    assert around.counts["all_reduce", "own"] == 2
    assert around.bytes["all_reduce", "own"] == 2 * sum(sizes)
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 400)
    around.counts.clear()
    assert_same(alone, trained(keras.optimizers.SGD(0.1, momentum=0.9)))
    assert around.counts["all_reduce", "own"] == 2 * 3


def test_batch_normalization_does_not_queue_behind_gradients(world):
    around = world(8)
    model = METHODS["rotation"](tiny_encoder())
    (norm,) = (x for x in model.encoder.layers if "batch_norm" in x.name)
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(np.zeros((4, 28, 28, 1), "uint8"))
    # Its two moments, in the forward and in the backward pass.
    moments = 2 * norm.gamma.shape[0]
    assert around.sizes["all_reduce", None, moments] == 2
    gradients = sum(v.value.numel() for v in model.trainable_variables)
    sent = [size for _, group, size in around.sizes if group == "own"]
    assert sent == [gradients]


def test_buckets_are_of_one_dtype_and_bounded(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 100)
    sizes = [(10, 4), (10, 4), (99, 2), (10, 4), (1, 2), (2, 4)]
    dtypes = {4: torch.float32, 2: torch.bfloat16}
    tensors = [torch.zeros(n, dtype=dtypes[size]) for n, size in sizes]
    found = [[len(t) for t in each] for each in buckets.in_buckets(tensors)]
    assert found == [[10, 10, 10], [99], [1], [2]]


def test_gradients_keep_their_strides_and_none_stays_none(world):
    around = world(4)
    x = torch.arange(24.0)
    kernel = torch.nn.Parameter(x.reshape(2, 3, 4).permute(2, 0, 1))
    unused = torch.nn.Parameter(torch.ones(3))
    one = torch.nn.Parameter(torch.tensor(2.0))
    factor = torch.arange(24.0).reshape(4, 2, 3)
    with buckets.averaged([kernel, unused, one], []):
        (kernel * factor * one).sum().backward()
    assert kernel.grad.stride() == kernel.stride() != factor.stride()
    assert torch.equal(kernel.grad, factor * 2)
    assert unused.grad is None
    assert one.grad == (kernel * factor).sum()
    assert around.counts == {("all_reduce", "own"): 1}


def test_weights_of_the_first_process_come_in_buckets(world):
    model = trained(keras.optimizers.SGD(0.1), 0)
    around = world(2)
    distributed.share_weights(model)
    dtypes = {variable.dtype for variable in model.variables}
    assert around.counts == {("broadcast", None): len(dtypes)}
    assert not any(weight.any() for weight in model.get_weights())


def test_micro_steps_send_no_gradients(world):
    def accumulating():
        return keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)

    alone = trained(accumulating(), 5)
    around = world(2)
    # Between two updates, each process has gradients of its own.
    model = trained(accumulating(), 5)
    assert around.counts["all_reduce", "own"] == 2
    assert_same(alone, model)
    distributed.share_accumulated(model)
    assert around.counts["all_reduce", "own"] == 3
    for ours, theirs in zip(
        alone.optimizer.variables, model.optimizer.variables
    ):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6
        )


def test_an_overflow_while_accumulating_is_one_in_all_processes(world):
    around = world(2)
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    trained(keras.optimizers.LossScaleOptimizer(inner), 3)
    assert around.counts["all_reduce", "own"] == 3


@pytest.mark.parametrize("can_scatter", [True, False])
def test_gather_sends_back_only_a_process_s_rows(world, can_scatter):
    around = world(4, can_scatter)
    x = torch.ones(3, 2, requires_grad=True)
    weight = torch.arange(24.0).reshape(12, 2)
    (distributed.gather(x) * weight).sum().backward()
    # All processes hold the same, so each row gets its gradient four times.
    assert torch.equal(x.grad, 4 * weight[:3])
    back = "reduce_scatter" if can_scatter else "all_reduce"
    assert around.counts == {("all_gather", None): 1, (back, None): 1}
    assert around.bytes[back, None] == (24 if can_scatter else 96)


def test_batches_are_compared_while_they_are_read(world, monkeypatch):
    world(2)
    batches = [np.zeros(4), np.zeros(3)]
    for others, problem in (
        ([4, 3, 0], None),
        ([4, 2], r"in batch 2, by process: \[3, 2\]"),
        ([4, 0], r"in batch 2, by process: \[3, 0\]"),
        ([4, 3, 4], r"in batch 3, by process: \[0, 4\]"),
    ):
        answers = iter(others)
        monkeypatch.setattr(
            processes,
            "from_all_processes",
            lambda own: [own, [next(answers)]],
        )
        read = distributed.in_step(iter(batches), len)
        if problem is None:
            assert list(read) == batches
        else:
            with pytest.raises(ValueError, match=problem):
                list(read)
