"""Losses as plain functions of tensors. Letters: B rows, K negatives, N items, D width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vitrail.blocks.embed import few_rows


class _Bpr(torch.autograd.Function):
    """Mean of softplus(negative - positive); the margins are all that its gradient needs."""

    @staticmethod
    def forward(ctx, positive: Tensor, negative: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        margin = negative - positive[:, None]
        ctx.save_for_backward(margin)
        return F.softplus(margin).mean()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        g = torch.sigmoid(ctx.saved_tensors[0]).mul_(gradients[0] / ctx.saved_tensors[0].numel())
        return g.sum(1).neg_(), g


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean of -log sigmoid(positive - negative).

    positive (B,), negative (B, K) -> scalar.
    """
    value: Tensor = _Bpr.apply(positive, negative)  # type: ignore[no-untyped-call]
    return value


def bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of SASRec: the mean over positives plus the mean over negatives.

    positive (B,), negative (B, K) -> scalar; 2 ln 2 where all logits are 0.
    """
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


def gbce(positive: Tensor, negative: Tensor, n_items: int, calibration: float) -> Tensor:
    """Generalised BCE (Petrov and Macdonald, RecSys 2023): the positive probability is raised to the power beta.

    positive (B,), negative (B, K) -> scalar. calibration t in [0, 1]: 0 is plain BCE, 1 fully corrects the sampling rate
    alpha = K / (N - 1); beta = alpha (t (1 - 1/alpha) + 1/alpha).
    """
    alpha = negative.shape[1] / max(n_items - 1, 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    return beta * F.softplus(-positive).mean() + F.softplus(negative).mean()


def bpr_max(positive: Tensor, negative: Tensor, penalty: float, same: Tensor | None = None) -> Tensor:
    """BPR-max (Hidasi and Karatzoglou, CIKM 2018): negatives count by their softmax, which also weighs a score penalty.

    positive (B,), negative (B, K), same (B, K) true where a negative is the positive itself (left out) -> scalar; BPR
    with one negative and penalty 0.
    """
    weights = (negative if same is None else negative.masked_fill(same, -torch.inf)).softmax(1)
    if same is not None:
        weights = weights.nan_to_num(0.0)  # a row whose every negative is the positive
    log_won = torch.logsumexp(weights.clamp(min=1e-24).log() + F.logsigmoid(positive[:, None] - negative), 1)
    return (penalty * (weights * negative.square()).sum(1) - log_won).mean()


def ccl(positive: Tensor, negative: Tensor, margin: float, weight: float) -> Tensor:
    """Cosine contrastive loss of SimpleX (Mao et al., CIKM 2021): 1 - positive, plus `weight` times the mean over negatives
    of what exceeds `margin`.

    positive (B,), negative (B, K) cosines -> scalar.
    """
    return F.relu(1 - positive).mean() + weight * F.relu(negative - margin).mean()


def info_nce(a: Tensor, b: Tensor, temperature: float, keys: Tensor | None = None) -> Tensor:
    """Contrastive loss: row k of `a` must find row k of `b`, or row `keys[k]`, among all rows of `b`, by cosine over `temperature`.

    a (B, D), b (B, D), or any number of rows with keys (B,) -> scalar, mean over rows; ln of the number of rows of `b` where all are equal. Rows of
    `b` must stand for distinct things.
    """
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return full_softmax(a / temperature, b, torch.arange(len(a), device=a.device) if keys is None else keys)


WIDE = 1024
"""Columns of a product of few columns inside that a processor makes at a time: in one go it takes half as long again."""


class _Within(torch.autograd.Function):
    """Computes loss and both gradients in the forward pass, some rows at a time: two products to the logits and four back, and one pass of exp, in a buffer
    that stays where it is; no (B, B) matrix is ever kept. Rows have length 1, so that exp needs no shift. Under autocast to bf16 the products are of
    bf16, the sums of float32."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, temperature: float, block: int) -> Tensor:  # type: ignore[no-untyped-def]
        kind, n = torch.get_autocast_dtype(a.device.type) if torch.is_autocast_enabled(a.device.type) else torch.float32, len(a)
        with torch.autocast(a.device.type, enabled=False):
            a, b = a.float(), b.float()
            both, asks = torch.cat([b, a]).to(kind), (a / temperature).to(kind)
            of_a, of_both, log_mass = torch.empty_like(a), torch.zeros_like(both), a.new_empty(n)
            room = torch.empty(min(block, n), 2 * n, dtype=kind, device=a.device)
            wide = WIDE if a.device.type == "cpu" else 2 * n
            for start in range(0, n, block):
                part = slice(start, start + block)
                p = room[: len(asks[part])]
                for first in range(0, 2 * n, wide):
                    torch.mm(asks[part], both[first : first + wide].T, out=p[:, first : first + wide])
                p.exp_()
                p.diagonal(n + start).zero_()  # no row stands in its own way
                mass = p.sum(1, dtype=torch.float32)
                log_mass[part] = mass.log()
                torch.div(p @ both, mass[:, None], out=of_a[part])
                of_both.addmm_(p.T, (a[part] / mass[:, None]).to(kind))
            of_b, own = of_both.float().split(n)
            scale = 1 / (n * temperature)
            ctx.save_for_backward(of_a.add_(own).sub_(b).mul_(scale), (of_b - a).mul_(scale))
            return (log_mass - (a * b).sum(1) / temperature).mean()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        of_a, of_b = ctx.saved_tensors
        return gradients[0] * of_a, gradients[0] * of_b, None, None


COLD = 0.05
"""The temperature under which e to the cosine over it is no number to sum."""


def info_nce_within(a: Tensor, b: Tensor, temperature: float, block: int | None = None) -> Tensor:
    """As `info_nce`, where the other rows of `a` stand in the way as those of `b` do (GRACE, Zhu et al., 2020): -log of e^(a_k.b_k) over the sum of
    e^(a_k.b_j) for all j and of e^(a_k.a_j) for j other than k.

    a (B, D), b (B, D) -> scalar, 0 without rows; a block of rows at a time.
    """
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    if not len(a):
        return a.sum() + b.sum()
    block = block or max(32, (1 << 22 if a.device.type == "cpu" else 1 << 27) // (2 * len(a)))
    if temperature >= COLD:
        value: Tensor = _Within.apply(a, b, temperature, block)  # type: ignore[no-untyped-call]
        return value
    both = torch.cat([b, a])

    def of_block(start: int, rows: Tensor, others: Tensor) -> Tensor:
        k = torch.arange(start, start + len(rows), device=rows.device)
        logits = rows @ others.T / temperature
        return F.cross_entropy(logits.scatter(1, (k + len(others) // 2)[:, None], -torch.inf), k, reduction="sum")

    total = a.new_zeros(())
    for start in range(0, len(a), block):
        total = total + checkpoint(of_block, start, a[start : start + block], both, use_reentrant=False, preserve_rng_state=False)  # type: ignore[operator]
    return total / len(a)


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of rows that belong together (Wang and Isola, ICML 2020): a (B, D), b (B, D) -> scalar."""
    return (a - b).square().sum(1).mean()


class _Uniformity(torch.autograd.Function):
    """The sum over pairs and its gradients in one pass, some rows at a time: no matrix of rows by rows is kept. Exponents are at most 8."""

    @staticmethod
    def forward(ctx, x: Tensor, like: Tensor | None, least: float, most: float) -> Tensor:  # type: ignore[no-untyped-def]
        n, mass = len(x), x.new_zeros(())
        of_x, of_like = torch.empty_like(x), None if like is None else torch.empty_like(like)
        for start in range(0, n, step := max(32, PAIRS // n)):
            part = slice(start, start + step)
            weights = x[part] @ x.T  # |x_a - x_b|^2 = 2 - 2 cos
            if like is None:
                weights = weights.sub_(1.0).mul_(4.0).exp_()
            else:
                similar = like[part] @ like.T
                weights = weights.sub_(similar.clamp(least, most)).mul_(4.0).exp_()
            weights.diagonal(start).zero_()
            mass += weights.sum()
            torch.mm(weights, x, out=of_x[part])
            if like is not None and of_like is not None:
                torch.mm(weights.mul_((similar >= least) & (similar <= most)), like, out=of_like[part])
        ctx.save_for_backward(of_x.mul_(8 / mass), None if of_like is None else of_like.mul_(-8 / mass))
        return mass.log() - math.log(n * (n - 1))

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:  # type: ignore[no-untyped-def]
        of_x, of_like = ctx.saved_tensors
        return gradients[0] * of_x, None if of_like is None else gradients[0] * of_like, None, None


PAIRS = 1 << 20
"""Pairs of rows that are held at once."""


def uniformity(x: Tensor, like: Tensor | None = None, least: float = -1.0, most: float = 1.0) -> Tensor:
    """Log of the mean over pairs of rows of exp(-2 |x_a - x_b|^2) (Wang and Isola, ICML 2020); calibrated (CM3) where it is said how alike the things
    are that rows stand for, the cosine s_ab of rows of `like` cut to [least, most]: exp(-2 (|x_a - x_b|^2 - 2 + 2 s_ab)), the plain form where all are 1.

    x (B, D) of length 1, like (B, D') of length 1 -> scalar; 0 with fewer than two rows.
    """
    if len(x) < 2:
        return x.new_zeros(())
    with torch.autocast(x.device.type, enabled=False):
        value: Tensor = _Uniformity.apply(x.float(), None if like is None else like.float(), least, most)  # type: ignore[no-untyped-call]
    return value


def info_nce_against(a: Tensor, b: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Contrastive loss with further negatives: row k of `a` must find row k of `b` among all rows of `b` and of `others`, by products over `temperature`.

    a (B, D), b (B, D), others (K, D) -> scalar, mean over rows; ln(B + K) where all rows are equal.
    """
    logits = torch.cat([a @ b.T, a @ others.T], 1) / temperature
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def sampled_softmax(positive: Tensor, negative: Tensor, same: Tensor | None = None) -> Tensor:
    """Cross-entropy of the positive against K sampled negatives. Where they are not drawn uniformly, take log Q, the log
    chance of being drawn, off all logits first (Bengio and Senecal 2008).

    positive (B,), negative (B, K), same (B, K) true where a negative is the positive itself (left out) -> scalar.
    """
    if same is not None:
        negative = negative.masked_fill(same, -torch.inf)
    return (torch.logsumexp(torch.cat([positive[:, None], negative], 1), 1) - positive).mean()


def anchored(anchor: Tensor, one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Contrastive loss with two right answers: row k of `anchor` must find row k of `one` and of `two` among all rows of both, by cosine.

    anchor, one, two (B, D) -> scalar, the mean over rows and both; ln 2B where all rows are equal.
    """
    keys = F.normalize(torch.cat([one, two]), dim=1)
    log_chance = (F.normalize(anchor, dim=1) @ keys.T / temperature).log_softmax(1)
    own = torch.arange(len(anchor), device=anchor.device)
    return -(log_chance[own, own] + log_chance[own, own + len(own)]).mean() / 2


class _BlockedCrossEntropy(torch.autograd.Function):
    """Computes loss and both gradients block by block in the forward pass: no (B, N) matrix is ever kept.

    One more column carries what softmax needs through the product: -shift beside h and 1 beside E make it h.E - shift. A block is
    then three products and a pass of exp, in one buffer that stays where it is. The shift is the bound |h| max|E| >= h.E, or the
    true maximum where exp would underflow.
    """

    @staticmethod
    def forward(ctx, h: Tensor, E: Tensor, targets: Tensor, block: int) -> Tensor:  # type: ignore[no-untyped-def]
        ones = torch.cat([E, E.new_ones(len(E), 1)], 1)
        longest = E.norm(dim=1).amax()
        grad_h, grad_E = torch.empty_like(h), torch.zeros_like(E)
        log_mass = h.new_empty(len(h))
        room = h.new_empty(min(block, len(h)), len(E))
        for start in range(0, len(h), block):
            x = h[start : start + block]
            shift = x.norm(dim=1) * longest
            p = torch.mm(torch.cat([x, -shift[:, None]], 1), ones.T, out=room[: len(x)]).exp_()
            mass = p.sum(1)
            if bool((mass < 1e-30).any()):
                logits = torch.mm(x, E.T, out=p)
                shift = logits.amax(1)
                p = logits.sub_(shift[:, None]).exp_()
                mass = p.sum(1)
            log_mass[start : start + block] = mass.log() + shift
            grad_h[start : start + block] = (p @ E).div_(mass[:, None])
            grad_E.addmm_(p.T, x / mass[:, None])
        picked = E[targets]
        loss = (log_mass - (h * picked).sum(1)).mean()
        grad_E.index_add_(0, targets, h, alpha=-1.0)
        ctx.save_for_backward((grad_h - picked).div_(len(h)), grad_E.div_(len(h)))
        return loss

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        grad_h, grad_E = ctx.saved_tensors
        return gradients[0] * grad_h, gradients[0] * grad_E, None, None


def full_softmax(h: Tensor, E: Tensor, targets: Tensor, block: int | None = None) -> Tensor:
    """Cross-entropy over all N items, mean over rows, in blocks of rows whose logits stay in the processor's cache.

    h (B, D) float32, E (N, D), targets (B,) -> scalar; ln N where all logits are 0.
    """
    if block is None:
        block = max(32, min(len(h), (3 << 19 if h.device.type == "cpu" else 1 << 26) // max(len(E), 1)))
    with torch.autocast(h.device.type, enabled=False):  # sums over N items want float32
        loss: Tensor = _BlockedCrossEntropy.apply(h.float().contiguous(), E.float(), targets, block)  # type: ignore[no-untyped-call]
    return loss


class _HalfSquares(torch.autograd.Function):
    """Half the sum of squares; the gradient is the tensor itself."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return torch.linalg.vector_norm(x).square() / 2

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        x: Tensor = ctx.saved_tensors[0]
        return gradients[0] * x


def l2_of_batch(*embeddings: Tensor) -> Tensor:
    """Half the summed squared norm of embeddings (B, D), divided by B: the regulariser of LightGCN and BPR."""
    total = sum((_HalfSquares.apply(e) for e in embeddings), start=embeddings[0].new_zeros(()))  # type: ignore[no-untyped-call]
    return total / len(embeddings[0])


def l2_of_rows(count: int, *named: tuple[Tensor, Tensor]) -> Tensor:
    """`l2_of_batch` of the rows that codes name, for pairs of a table (N, D) and codes of any shape, divided by `count`: each row is read once, and the
    gradient holds these rows alone."""
    total = named[0][0].new_zeros(())
    for table, codes in named:
        found, often = codes.unique(return_counts=True)
        total = total + (few_rows(table, found).square().sum(1) * often).sum()
    return total / (2 * count)


def emb_loss(*embeddings: Tensor) -> Tensor:
    """Norms, not squared, of whole matrices (B, D), summed and divided by the rows of the last: the regulariser of RecBole and MMRec. Its squared form
    is `l2_of_batch`."""
    return sum((e.norm() for e in embeddings), start=embeddings[0].new_zeros(())) / len(embeddings[-1])


def orthogonality(a: Tensor, b: Tensor) -> Tensor:
    """Mean over pairs of coordinates of (A^T B)^2, A and B being the rows less their mean and divided by their length, which carries no gradient: 0 where
    what `a` says of the rows has nothing to do with what `b` says (domain separation, Bousmalis et al., NIPS 2016). a (B, D), b (B, D) -> scalar."""
    a, b = (x - x.mean(0) for x in (a, b))
    a, b = (x / x.detach().norm(dim=1, keepdim=True).clamp(min=1e-6) for x in (a, b))
    return (a.T @ b).square().mean()
