"""Checks of the card collaborative/dgvae that hand values allow (its parts: blocks/test_disentangle.py); its margin over BM3 needs words of pictures."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from worlds import ITEMS, KINDS, facts, make, random_log

from vitrail.blocks.disentangle import across, parts_agree, spread_kl
from vitrail.data.batches import Sets
from vitrail.systems.multimodal.dgvae import DGVAE

SMALL = {"words": "text", "neighbours": 4, "anneal": 10}


def test_it_asks_for_words_beside_content() -> None:
    assert DGVAE.wants(DGVAE.Config()).vectors == ("text", "image", "words")
    assert DGVAE.wants(DGVAE.Config(words="")).vectors == ("text", "image")
    assert DGVAE.wants(DGVAE.Config(words="text")).vectors == ("text", "image")


def test_loss_equals_the_formulas() -> None:
    log = random_log()
    model = make(DGVAE, log, facts(log, {"image": 3}), **SMALL).eval()
    model.after_step([])  # the weight of the KL is 2 tenths, but for beta
    batch = log.histories(np.array([1, 2, 5]))
    x = torch.from_numpy(log.matrix().toarray()[[1, 2, 5]]).float()
    S = model.graph(torch.eye(ITEMS))
    torch.testing.assert_close(model.smooth(x), x @ S @ S)
    spoken = facts(log).vectors["text"].clamp(min=0)
    words = F.normalize(x @ spoken, dim=1)
    share, said = model.items_net.belonging(), model.words_net.belonging()
    code, one = model.items_net.encode(x, share, 0.0, lambda part: part @ S @ S)
    told, two = model.words_net.encode(words, said, 0.0)
    a, b = across(told, code), across(code, told)
    likely = -(model.items_net.decode(a + b, share).log_softmax(1) * x).sum(1).mean()
    heard = -(model.words_net.decode(a + b, said).log_softmax(1) * words).sum(1).mean()
    plain = likely + 0.2 * spread_kl(one) + 0.2 * (heard + 0.2 * spread_kl(two)) + 0.4 * parts_agree(a, b)
    torch.testing.assert_close(model.loss(batch), plain)


def test_without_words_and_graph_it_is_macridvae() -> None:
    log = random_log()
    model = make(DGVAE, log, words="", item_layers=0).eval()
    assert model.graph is None and not hasattr(model, "words_net")
    model.prepare()
    x, net = torch.from_numpy(log.matrix().toarray()[[4]]).float(), model.items_net
    E, M = F.normalize(net.things, dim=1), F.normalize(net.prototypes, dim=1)
    C = (E @ M.T / 0.1).softmax(1)
    total = 0.0
    for k in range(3):
        z = F.normalize((F.normalize(x * C[:, k], dim=1) @ net.read + net.shift)[:, :8], dim=1)
        total = total + torch.exp(z @ E.T / 0.1) * C[:, k]
    torch.testing.assert_close(model.scores(log.histories(np.array([4]))), total.log(), rtol=1e-4, atol=1e-4)


def test_rows_are_their_own_and_an_empty_one_is_no_number_lost() -> None:
    log = random_log()
    model = make(DGVAE, log, **SMALL).eval()
    model.prepare()
    users = np.array([5, 0, 9])
    scores = model.scores(log.histories(users))
    torch.testing.assert_close(model.scores(log.histories(users[::-1].copy())), scores.flip(0))
    assert scores.isfinite().all() and not model.answerable(log.histories(users))[1]
    again = Sets(torch.tensor([-1]), torch.tensor([0, 3]), torch.tensor([2, 2, 7]))
    once = Sets(torch.tensor([-1]), torch.tensor([0, 2]), torch.tensor([7, 2]))
    torch.testing.assert_close(model.scores(again), model.scores(once))
    assert model.get_buffer("spoken").shape == (ITEMS, KINDS["text"]) and (model.get_buffer("spoken") >= 0).all()
